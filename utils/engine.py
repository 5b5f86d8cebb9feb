"""Train and evaluate: full-batch steps over one graph. Knows tensors and the configuration, no arguments, no files."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.cemobam import CemoBAM
from utils.config import Config
from utils.errors import InputError
from utils.graph_data import GraphData
from utils.interrupts import Interrupted, deferred_interrupt
from utils.metrics import compute_metrics

MOMENTUM = 0.9  # of the moving average of smoothed_val_wf1: it looks back about ten epochs


def build_model(config: Config, text_dim: int, audio_dim: int, num_classes: int) -> CemoBAM:
    return CemoBAM(
        text_dim,
        audio_dim,
        num_classes,
        hidden_dim=config.hidden_dim,
        heads=config.heads,
        num_layers=config.num_layers,
        dropout=config.dropout,
        fusion_type=config.fusion_type,
        ablation=config.ablation,
        gat_norm=config.gat_norm,
        gat_last_heads=config.gat_last_heads,
        gat_residual=config.gat_residual,
        gat_layer_scale=config.gat_layer_scale,
        channel_gate=config.channel_gate,
    )


def build_optimizer(model: nn.Module, config: Config) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)


def build_scheduler(optimizer: torch.optim.Optimizer, config: Config):
    if config.lr_schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=config.lr_decay, patience=config.lr_patience
        )
    return torch.optim.lr_scheduler.StepLR(optimizer, config.lr_patience, config.lr_decay)


def embed(model: CemoBAM, data: GraphData) -> Tensor:
    """The last hidden layer of the classifier in evaluation mode, [N - context, hidden_dim]."""
    model.eval()
    with torch.no_grad():
        return model.embed(data.text, data.audio, data.graph)[data.context :]


def predict(model: CemoBAM, data: GraphData) -> Tensor:
    """The most likely class of each scored node, [N - context]."""
    return _logits(model, data).argmax(1)


def _logits(model: CemoBAM, data: GraphData) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(data.text, data.audio, data.graph)[data.context :]


def evaluate(model: CemoBAM, data: GraphData) -> dict:
    """The figures of :func:`utils.metrics.compute_metrics`, and ``loss``, the plain cross entropy."""
    return _figures(_logits(model, data), data)


def _figures(logits: Tensor, data: GraphData) -> dict:
    loss = F.cross_entropy(logits, data.scored_label).item()
    return {"loss": loss, **compute_metrics(data.scored_label, logits.argmax(1), logits.size(1))}


@dataclass
class TrainingState:
    """Everything that changes while training; ``to_dict`` and ``restore`` make a run resumable to the same numbers."""

    model: CemoBAM
    optimizer: torch.optim.Optimizer
    scheduler: object
    epoch: int = 0  # epochs done
    smoothed: float | None = None  # moving average of the validation w-F1, where it chooses the epoch
    best_score: float = float("-inf")
    best_epoch: int = 0
    best_weights: dict | None = None

    def to_dict(self) -> dict:
        device = next(self.model.parameters()).device
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "epoch": self.epoch,
            "smoothed": self.smoothed,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "training": self.model.training,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def restore(self, saved: dict) -> None:
        self.model.load_state_dict(saved["model"])
        self.model.train(saved["training"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.epoch = saved["epoch"]
        self.smoothed = saved["smoothed"]
        self.best_score = saved["best_score"]
        self.best_epoch = saved["best_epoch"]
        self.best_weights = saved["best_weights"]
        torch.set_rng_state(saved["rng"])
        if saved["cuda_rng"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(saved["cuda_rng"])


def start_training(model: CemoBAM, config: Config) -> TrainingState:
    """A fresh state, in train mode: the published code calls ``train()`` here and never again."""
    optimizer = build_optimizer(model.train(), config)
    return TrainingState(model, optimizer, build_scheduler(optimizer, config))


def train_step(state: TrainingState, data: GraphData, config: Config) -> float:
    """One full-batch step; returns its loss.

    Raises:
        InputError: the loss is not finite; the weights are left as they were before the step.
    """
    if config.train_mode == "every_step":
        state.model.train()
    state.optimizer.zero_grad()
    logits = state.model(data.text, data.audio, data.graph)
    loss = F.cross_entropy(logits, data.label, label_smoothing=config.label_smoothing)
    if not torch.isfinite(loss):
        raise InputError(f"epoch {state.epoch + 1}: the training loss is {loss.item()}; try a smaller --lr")
    loss.backward()
    state.optimizer.step()
    return loss.item()


def train_epoch(state: TrainingState, train: GraphData, val: GraphData, config: Config) -> dict:
    """One step, then validation, the schedule, and the choice of weights. Returns one line of the log."""
    begin = time.perf_counter()
    lr = state.optimizer.param_groups[0]["lr"]
    train_loss = train_step(state, train, config)
    figures = evaluate(state.model, val)
    if not math.isfinite(figures["loss"]):
        raise InputError(f"epoch {state.epoch + 1}: the validation loss is {figures['loss']}; try a smaller --lr")
    if config.lr_schedule == "plateau":
        state.scheduler.step(figures["loss"])
    else:
        state.scheduler.step()
    state.epoch += 1
    score = _score(state, figures["w_f1"], config.selection)
    if score > state.best_score:
        state.best_score, state.best_epoch = score, state.epoch
        state.best_weights = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    return {
        "epoch": state.epoch,
        "lr": lr,
        "train_loss": train_loss,
        **{f"val_{name}": figures[name] for name in ("loss", "wa", "ua", "w_f1", "macro_f1")},
        "seconds": round(time.perf_counter() - begin, 4),
    }


def _score(state: TrainingState, w_f1: float, selection: str) -> float:
    """What the epoch with the largest value is chosen by."""
    if selection == "last":
        return state.epoch
    if selection == "best_val_wf1":
        return w_f1
    state.smoothed = smooth(state.smoothed, w_f1)
    return state.smoothed


def smooth(average: float | None, score: float) -> float:
    """The moving average of smoothed_val_wf1 with one score more; None where there is none yet."""
    return score if average is None else MOMENTUM * average + (1 - MOMENTUM) * score


def fit(
    state: TrainingState, train: GraphData, val: GraphData, config: Config, on_epoch: Callable[[dict], None]
) -> None:
    """Train from the state's epoch to ``config.epochs``; ``on_epoch`` gets each line of the log.

    Raises:
        Interrupted: after the first Ctrl-C or SIGTERM. A second one is a bare KeyboardInterrupt, at once.
    """
    with deferred_interrupt() as interrupted:
        while state.epoch < config.epochs:
            on_epoch(train_epoch(state, train, val, config))
            if interrupted():
                raise Interrupted


def evaluate_selected(state: TrainingState, val: GraphData, test: GraphData) -> tuple[dict, Tensor]:
    """Put the weights of the selected epoch into the model and evaluate both splits: what a finished training found.

    Returns:
        ``selected_epoch`` and the figures of ``val`` and ``test``; the predictions for test, [N - context].

    Raises:
        InputError: a loss is not finite.
    """
    state.model.load_state_dict(state.best_weights)
    logits = _logits(state.model, test)
    figures = {"val": evaluate(state.model, val), "test": _figures(logits, test)}
    for split, of_split in figures.items():
        if not math.isfinite(of_split["loss"]):
            raise InputError(f"epoch {state.best_epoch}: the {split} loss is {of_split['loss']}; try a smaller --lr")
    return {"selected_epoch": state.best_epoch, **figures}, logits.argmax(1)
