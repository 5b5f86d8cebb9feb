"""Steps, validation and early stopping of a fine-tuning. Knows encoders and batches, no arguments, no files."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.encoders import AudioEncoder, TextEncoder, unfreeze_upper
from utils.errors import InputError
from utils.finetuning.batches import Batch, Recordings, Transcripts, plan_contrastive_epoch, plan_epoch
from utils.finetuning.objectives import OBJECTIVES, Classification, NTXent, probe
from utils.interrupts import Interrupted, deferred_interrupt
from utils.metrics import compute_metrics

WARMUP = 0.1  # of all steps; the learning rate rises to its value, then falls to 0, both linearly
MAX_NORM = 1.0  # of the gradient
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TuneConfig:
    """Everything that decides a fine-tuning's numbers; ``encoder`` is the SHA-256 of the weights it begins with."""

    dataset: str
    modality: str
    encoder: str
    pooling: str
    objective: str = OBJECTIVES[0]
    unfreeze_layers: int = 2
    epochs: int = 10
    patience: int = 3
    batch_size: int = 8
    lr: float = 1e-4
    head_lr: float = 1e-3
    weight_decay: float = 0.01
    precision: str = "fp32"
    seed: int = 42


class Trainer:
    """An encoder being tuned, and everything that changes meanwhile.

    What is frozen stays in evaluation mode: without dropout and layer drop, as in an extraction.

    Raises:
        ValueError: the encoder has no such layers.
    """

    def __init__(self, encoder: TextEncoder | AudioEncoder, num_classes: int, config: TuneConfig):
        self.encoder = encoder
        self.config = config
        self.device = encoder.model.device
        self.upper = unfreeze_upper(encoder, config.unfreeze_layers)
        supervised = config.objective == "supervised"
        self.objective = (Classification(encoder.dim, num_classes) if supervised else NTXent()).to(self.device)
        groups = [{"params": [p for module in self.upper for p in module.parameters()], "lr": config.lr}]
        if supervised:
            groups.append({"params": list(self.objective.parameters()), "lr": config.head_lr})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self._base_lr = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.epoch = self.step = 0  # epochs done, and steps of the one under way
        self.loss = 0.0  # sum over the steps of the epoch under way
        self.best_ua, self.best_epoch = -1.0, 0

    def state(self) -> dict:
        """All that going on needs, as plain values and tensors."""
        return {
            "upper": [module.state_dict() for module in self.upper],
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in ("epoch", "step", "loss", "best_ua", "best_epoch")},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, saved: dict) -> None:
        for module, weights in zip(self.upper, saved["upper"], strict=True):
            module.load_state_dict(weights)
        self.objective.load_state_dict(saved["objective"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        for name in ("epoch", "step", "loss", "best_ua", "best_epoch"):
            setattr(self, name, saved[name])
        torch.set_rng_state(saved["rng"])
        if saved["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda_rng"])

    @property
    def finished(self) -> bool:
        stale = self.best_epoch and self.epoch - self.best_epoch >= self.config.patience
        return bool(stale) or self.epoch >= self.config.epochs

    def train_epoch(self, data: Recordings | Transcripts, on_step: Callable[[bool], None]) -> float:
        """The steps of this epoch that are left; returns the epoch's mean loss.

        Raises:
            Interrupted: after the first Ctrl-C or SIGTERM, when the step under way is done.
            InputError: the loss is not finite, or the GPU's memory does not hold a batch.
        """
        rng = np.random.default_rng([self.config.seed, self.epoch])
        plan = plan_epoch if self.config.objective == "supervised" else plan_contrastive_epoch
        steps = plan(data, self.config.batch_size, rng)
        left = steps[self.step :]
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        bar = tqdm(total=len(steps), initial=self.step, desc=title, unit="step", leave=False, dynamic_ncols=True)
        stream = data.inputs([batch.items for step in left for batch in step])
        with deferred_interrupt() as interrupted, closing(stream), bar:
            for step in left:
                self.encoder.eval()
                for module in (*self.upper, self.objective):
                    module.train()
                self._schedule(self.epoch * len(steps) + self.step, self.config.epochs * len(steps))
                self.loss += self._take(step, stream)
                self.step += 1
                bar.set_postfix(loss=f"{self.loss / self.step:.3f}", refresh=False)
                bar.update()
                on_step(self.step == len(steps))
                if interrupted():
                    raise Interrupted
        return self.loss / len(steps)

    def _schedule(self, step: int, total: int) -> None:
        warmup = max(1, round(WARMUP * total))
        factor = min((step + 1) / warmup, (total - step) / max(1, total - warmup))
        for group, base in zip(self.optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = base * factor

    def _take(self, step: list[Batch], stream) -> float:
        """One step of the optimizer, its gradients added up over the batches; returns its loss."""
        self.optimizer.zero_grad()
        total = 0.0
        dtype = PRECISIONS[self.config.precision]
        for batch in step:
            labels = torch.tensor(batch.labels, device=self.device)
            inputs = next(stream)
            try:
                with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                    embeddings = self.encoder(inputs)
                loss = self.objective(embeddings.float(), labels) * batch.share
                if not torch.isfinite(loss):
                    raise InputError(f"epoch {self.epoch + 1}: the loss is {loss.item()}; try a smaller --lr")
                self.scaler.scale(loss).backward()
            except torch.OutOfMemoryError as error:
                raise InputError(
                    "the GPU's memory does not hold a batch; lower --batch_seconds, --batch_tokens or, "
                    "with ntxent, --batch_size"
                ) from error
            total += loss.item()
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        if not torch.isfinite(norm) and not self.scaler.is_enabled():  # the scaler leaves such a step out
            raise InputError(f"epoch {self.epoch + 1}: the gradient is not finite; try a smaller --lr")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total

    @torch.no_grad()
    def validate(self, train: Recordings | Transcripts, val: Recordings | Transcripts) -> dict:
        """Figures of val, in float32 through the very path of an extraction: by the classifier that is trained along,
        or, with NT-Xent, by a logistic regression on the train embeddings.
        """
        self.encoder.eval()
        self.objective.eval()
        found = val.embed(f"epoch {self.epoch + 1}, val")
        if isinstance(self.objective, Classification):
            logits: Tensor = self.objective.head(found.to(self.device)).cpu()
            guesses, loss = logits.argmax(1), nn.functional.cross_entropy(logits, val.target).item()
        else:
            embeddings = train.embed(f"epoch {self.epoch + 1}, train for the probe")
            guesses, loss = probe(embeddings, train.target, found), None
        figures = compute_metrics(val.target, guesses, int(train.target.max()) + 1)
        return {"loss": loss, **figures}

    def fit(
        self,
        train: Recordings | Transcripts,
        val: Recordings | Transcripts,
        on_step: Callable[[bool], None],
        on_epoch: Callable[[dict, bool], None],
    ) -> None:
        """Train until the epochs are over or validation UA has not risen for ``patience`` of them.

        Args:
            on_step: called after each step with whether it is the epoch's last, before the validation.
            on_epoch: gets each line of the log, and whether this epoch is the best so far.
        """
        while not self.finished:
            begin = time.perf_counter()
            loss = self.train_epoch(train, on_step)
            figures = self.validate(train, val)
            self.epoch, self.step, self.loss = self.epoch + 1, 0, 0.0
            improved = figures["ua"] > self.best_ua
            if improved:
                self.best_ua, self.best_epoch = figures["ua"], self.epoch
            names = ("loss", "wa", "ua", "w_f1", "macro_f1")
            line = {"epoch": self.epoch, "train_loss": loss, **{f"val_{name}": figures[name] for name in names}}
            on_epoch({**line, "seconds": round(time.perf_counter() - begin, 2)}, improved)
