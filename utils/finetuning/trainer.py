"""Fine-tune an encoder: optimisation steps, validation, early stopping. Independent of arguments and files."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from models.encoders import unfreeze_upper
from utils.device import seed_everything
from utils.errors import InputError, Interrupted, deferred_interrupt, fitting_into_memory
from utils.finetuning.batches import Batch, Recordings, Transcripts, plan_contrastive_epoch, plan_epoch
from utils.finetuning.config import TuneConfig
from utils.finetuning.objectives import Classification, NTXent, probe
from utils.training.loop import check_loss, check_state
from utils.training.metrics import compute_metrics

WARMUP = 0.1  # fraction of all steps in which the learning rate rises linearly, before it falls linearly to 0
MAX_NORM = 1.0  # of the gradient
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # types of the forward pass


def pick_precision(given: str | None, device: torch.device) -> str:
    """The given precision, or the default: bf16 (fp16 on older GPUs) on CUDA, fp32 on a CPU.

    Raises:
        InputError: fp16 was requested on a CPU.
    """
    if device.type == "cuda":
        return given or ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16")
    if given == "fp16":
        raise InputError("--precision fp16: needs a CUDA device; a CPU supports fp32 and bf16")
    return given or "fp32"


class Trainer:
    """Fine-tunes the encoder of ``train``, and holds all state that changes during training.

    Frozen modules stay in evaluation mode, without dropout and layer drop, as in feature extraction.

    Raises:
        ValueError: The encoder has fewer than ``config.unfreeze_layers`` layers, or they share their weights.
        InputError: All utterances of ``train`` are equal (NT-Xent only).
    """

    def __init__(self, train: Recordings | Transcripts, val: Recordings | Transcripts, config: TuneConfig):
        seed_everything(config.seed)
        self.train, self.val, self.config = train, val, config
        self.encoder = train.encoder
        self.device = self.encoder.model.device
        self.num_classes = int(train.target.max()) + 1
        self.upper = unfreeze_upper(self.encoder, config.unfreeze_layers)
        supervised = config.objective == "supervised"
        self.objective = Classification(self.encoder.dim, self.num_classes) if supervised else NTXent()
        self.objective.to(self.device)
        groups = [{"params": [p for module in self.upper for p in module.parameters()], "lr": config.lr}]
        if supervised:
            groups.append({"params": list(self.objective.parameters()), "lr": config.head_lr})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        total = config.epochs * len(self._plan(epoch=0))
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, max(1, round(WARMUP * total)), total)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.epoch = self.step = 0  # finished epochs, and finished steps of the current one
        self.loss = 0.0  # sum over the finished steps of the current epoch
        self.best_ua, self.best_epoch = -1.0, 0

    def state(self) -> dict:
        """Everything needed to resume, as plain values and tensors."""
        return {
            "upper": [module.state_dict() for module in self.upper],
            **{name: getattr(self, name).state_dict() for name in ("objective", "optimizer", "schedule", "scaler")},
            **{name: getattr(self, name) for name in ("epoch", "step", "loss", "best_ua", "best_epoch")},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, saved: dict) -> None:
        """Load what :meth:`state` returned.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: ``saved`` is something else.
        """
        check_state(saved, self.state(), self.optimizer)
        epoch, step, best = saved["epoch"], saved["step"], saved["best_epoch"]
        if not (0 <= epoch <= self.config.epochs and (epoch > 0) <= best <= epoch and step >= 0):
            raise ValueError(f"epoch {epoch}, step {step}, best epoch {best}")
        for module, weights in zip(self.upper, saved["upper"], strict=True):
            module.load_state_dict(weights)
        for name in ("objective", "optimizer", "schedule", "scaler"):
            getattr(self, name).load_state_dict(saved[name])
        for name in ("epoch", "step", "loss", "best_ua", "best_epoch"):
            setattr(self, name, saved[name])
        torch.set_rng_state(saved["rng"])
        if saved["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda_rng"], self.device)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or validation UA has not improved for ``patience`` epochs."""
        stale = self.best_epoch and self.epoch - self.best_epoch >= self.config.patience
        return bool(stale) or self.epoch >= self.config.epochs

    def fit(self, on_step: Callable[[bool], None]) -> Iterator[tuple[dict, bool]]:
        """Train until :attr:`finished`.

        Args:
            on_step: Called after each step with whether it is the epoch's last, before the validation.

        Yields:
            For each epoch, its log line, and whether it is the best so far.
        """
        while not self.finished:
            begin = time.perf_counter()
            loss = self.train_epoch(on_step)
            metrics = self.validate()
            self.epoch, self.step, self.loss = self.epoch + 1, 0, 0.0
            improved = metrics["ua"] > self.best_ua
            if improved:
                self.best_ua, self.best_epoch = metrics["ua"], self.epoch
            names = ("loss", "wa", "ua", "w_f1", "macro_f1")
            line = {"epoch": self.epoch, "train_loss": loss, **{f"val_{name}": metrics[name] for name in names}}
            yield {**line, "seconds": round(time.perf_counter() - begin, 2)}, improved

    def train_epoch(self, on_step: Callable[[bool], None]) -> float:
        """Run the remaining steps of the current epoch; returns the epoch's mean loss.

        Raises:
            Interrupted: After a Ctrl-C or SIGTERM, once the current step is finished.
            InputError: The loss is not finite, or a step does not fit into memory.
        """
        steps = self._plan(self.epoch)
        remaining = steps[self.step :]
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        bar = tqdm(total=len(steps), initial=self.step, desc=title, unit="step", leave=False, dynamic_ncols=True)
        stream = self.train.inputs([batch.items for step in remaining for batch in step])
        # with NT-Xent, each step is one batch
        option = self.train.budget_option if self.config.objective == "supervised" else "--batch_size"
        with deferred_interrupt() as interrupted, closing(stream), bar:
            for step in remaining:
                self.encoder.eval()
                for module in (*self.upper, self.objective):
                    module.train()
                with fitting_into_memory("a step", f"lower {option} or --unfreeze_layers"):
                    self.loss += self._take(step, stream)
                self.step += 1
                bar.set_postfix(loss=f"{self.loss / self.step:.3f}", refresh=False)
                bar.update()
                on_step(self.step == len(steps))
                if interrupted():
                    raise Interrupted
        return self.loss / len(steps)

    def _plan(self, epoch: int) -> list[list[Batch]]:
        plan = plan_epoch if self.config.objective == "supervised" else plan_contrastive_epoch
        return plan(self.train, self.config.batch_size, np.random.default_rng([self.config.seed, epoch]))

    def _take(self, step: list[Batch], stream: Iterator[list]) -> float:
        """One optimiser step with gradients accumulated over its batches; returns its loss."""
        self.optimizer.zero_grad()
        total = 0.0
        dtype = _AUTOCAST[self.config.precision]
        for batch in step:
            labels = torch.tensor(batch.labels, device=self.device)
            inputs = next(stream)
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                embeddings = self.encoder(inputs)
            loss = self.objective(embeddings.float(), labels) * batch.share
            if not torch.isfinite(loss):
                raise InputError(f"epoch {self.epoch + 1}: the loss is {loss.item()}; try a smaller --lr")
            self.scaler.scale(loss).backward()
            total += loss.item()
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        if not torch.isfinite(norm) and not self.scaler.is_enabled():  # the scaler skips such a step
            raise InputError(f"epoch {self.epoch + 1}: the gradient is not finite; try a smaller --lr")
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # a skipped step lowers it
            self.schedule.step()
        return total

    @torch.no_grad()
    def validate(self) -> dict:
        """Validation metrics in float32, with embeddings computed as in feature extraction.

        Predictions come from the classifier that is trained with the encoder. With NT-Xent, they come from a logistic
        regression on the training embeddings, and the loss is None.

        Raises:
            InputError: The loss is not finite.
        """
        self.encoder.eval()
        self.objective.eval()
        embeddings = self.val.embed(f"epoch {self.epoch + 1}, val")
        if isinstance(self.objective, Classification):
            logits: Tensor = self.objective.head(embeddings.to(self.device)).cpu()
            guesses, loss = logits.argmax(1), nn.functional.cross_entropy(logits, self.val.target).item()
            check_loss(loss, "validation", self.epoch + 1, "--head_lr")
        else:
            train = self.train.embed(f"epoch {self.epoch + 1}, train for the probe")
            guesses, loss = probe(train, self.train.target, embeddings), None
        return {"loss": loss, **compute_metrics(self.val.target, guesses, self.num_classes)}
