"""The training loop: full-batch steps over one graph. It does not handle command-line arguments or files."""

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, isqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.cemobam import CemoBAM
from utils.config import Config
from utils.data.safe_pickle import check_like
from utils.errors import InputError
from utils.training.graph import GraphData
from utils.training.metrics import METRICS, confusion, metrics_of

Scheduler = torch.optim.lr_scheduler.LRScheduler


@dataclass
class TrainingState:
    """Everything that changes during training."""

    model: CemoBAM
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    epoch: int = 0  # completed epochs
    best_score: float = float("-inf")
    best_epoch: int = 0
    best_weights: dict[str, Tensor] | None = None

    def state_dict(self) -> dict:
        """Everything that a bit-identical resume needs, including the random number generators."""
        device = next(self.model.parameters()).device
        return {
            "model": self.model.state_dict(),
            "training": self.model.training,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            **{name: getattr(self, name) for name in ("epoch", "best_score", "best_epoch", "best_weights")},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def load_state_dict(self, saved: dict) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: ``saved`` is something else. The state is then undefined.
        """
        check_state(saved, self.state_dict() | {"best_weights": self.model.state_dict()}, self.optimizer)
        if not 1 <= saved["best_epoch"] <= saved["epoch"]:
            raise ValueError(f"best epoch {saved['best_epoch']} of {saved['epoch']}")
        self.model.load_state_dict(saved["model"])
        self.model.train(saved["training"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        for name in ("epoch", "best_score", "best_epoch", "best_weights"):
            setattr(self, name, saved[name])
        torch.set_rng_state(saved["rng"])
        device = next(self.model.parameters()).device
        if saved["cuda_rng"] is not None and device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda_rng"], device)


def check_state(saved: dict, fresh: dict, optimizer: torch.optim.Optimizer) -> None:
    """Check a saved state against a ``fresh`` one of the same training.

    torch accepts any optimiser and scheduler state. It then fails in a later step, or trains with other settings.

    Args:
        saved, fresh: states with ``optimizer`` and ``cuda_rng``; ``cuda_rng`` is not compared.
        optimizer: the Adam of the fresh state.

    Raises:
        LookupError, TypeError, ValueError, RuntimeError: types, names, shapes or options differ, or a number is not
            finite.
    """
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    moments = {
        i: {"step": torch.zeros(()), "exp_avg": parameters[i], "exp_avg_sq": parameters[i]}
        for i in saved["optimizer"]["state"]  # an unused parameter has no state
    }
    groups = fresh["optimizer"]["param_groups"]
    expected = fresh | {"optimizer": {"state": moments, "param_groups": groups}, "cuda_rng": None}
    check_like(saved | {"cuda_rng": None}, expected, "state")
    for group, of_fresh in zip(saved["optimizer"]["param_groups"], groups, strict=True):
        if group | {"lr": None} != of_fresh | {"lr": None}:
            raise ValueError("the options of the optimizer differ")


class Adam(torch.optim.Adam):
    """:class:`torch.optim.Adam` without the wrappers of its methods that only serve ``torch.compile``.

    They import ``torch._dynamo`` on first use, which takes longer than a short training. The results are the same.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


def start_training(model: CemoBAM, config: Config) -> TrainingState:
    """The state before the first epoch: a model with its optimiser and scheduler."""
    optimizer = Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return TrainingState(model, optimizer, build_scheduler(optimizer, config))


def build_scheduler(optimizer: torch.optim.Optimizer, config: Config) -> Scheduler:
    """Decay ``lr`` every ``lr_patience`` epochs (III.B), or when the validation loss stalls (the published code)."""
    if config.lr_schedule == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, config.lr_patience, config.lr_decay)
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=config.lr_decay, patience=config.lr_patience)


def fit(
    state: TrainingState, train: GraphData, val: GraphData, config: Config, on_epoch: Callable[[dict], None]
) -> None:
    """Train from the state's epoch to ``config.epochs``; ``on_epoch`` is called with one log line per epoch.

    Raises:
        InputError: a loss is not finite.
    """
    model, optimizer, scheduler = state.model, state.optimizer, state.scheduler
    while state.epoch < config.epochs:
        begin = time.perf_counter()
        lr = optimizer.param_groups[0]["lr"]
        # The published code calls train() once before its loop; evaluation then leaves the model in eval mode, so from
        # the second step on dropout is off and BatchNorm frozen ("first_step").
        if config.train_mode == "every_step" or state.epoch == 0:
            model.train()
        of_train = train_step(state, train, config).double().view(1)
        # tolist() is the only wait for the device in an epoch
        train_loss, *of_val = torch.cat([of_train, tally(predict(model, val), val)]).tolist()
        check_loss(train_loss, "training", state.epoch + 1)
        metrics = read_tally(of_val)
        check_loss(metrics["loss"], "validation", state.epoch + 1)
        if config.lr_schedule == "step":
            scheduler.step()
        else:
            scheduler.step(metrics["loss"])
        state.epoch += 1
        score = metrics["w_f1"] if config.selection == "best_val_wf1" else state.epoch
        if score > state.best_score:
            state.best_score, state.best_epoch = score, state.epoch
            state.best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        of_val = {f"val_{name}": metrics[name] for name in ("loss", *METRICS)}
        seconds = round(time.perf_counter() - begin, 4)
        on_epoch({"epoch": state.epoch, "lr": lr, "train_loss": train_loss, **of_val, "seconds": seconds})


def train_step(state: TrainingState, data: GraphData, config: Config) -> Tensor:
    """One full-batch step of Adam on the cross entropy; returns the loss, a scalar on the device.

    If the loss is not finite, the weights do not change. The fused Adam reads this from the device
    (``found_inf``, as with a gradient scaler), so the CPU does not wait for the loss.
    """
    state.optimizer.zero_grad()
    logits = state.model(data.text, data.audio, data.graph)
    loss = F.cross_entropy(logits, data.label, label_smoothing=config.label_smoothing)
    loss.backward()
    loss = loss.detach()
    state.optimizer.found_inf = loss.isfinite().logical_not().float()
    state.optimizer.step()
    return loss


def check_loss(loss: float, kind: str, epoch: int, option: str = "--lr") -> None:
    """Raise an InputError that names the option to lower if a loss is not finite."""
    if not isfinite(loss):
        raise InputError(f"epoch {epoch}: the {kind} loss is {loss}; try a smaller {option}")


@torch.no_grad()
def predict(model: CemoBAM, data: GraphData) -> Tensor:
    """Logits [N - context, num_classes] of the scored nodes in evaluation mode."""
    return model.eval()(data.text, data.audio, data.graph)[data.context :]


@torch.no_grad()
def embed(model: CemoBAM, data: GraphData) -> Tensor:
    """The last hidden layer of the classifier in evaluation mode, [N - context, hidden_dim]."""
    return model.eval().embed(data.text, data.audio, data.graph)[data.context :]


def evaluate(model: CemoBAM, data: GraphData) -> tuple[dict, Tensor]:
    """Return ``loss`` (plain cross entropy in nats) with :func:`metrics_of`, and the logits [N - context, C]."""
    logits = predict(model, data)
    return read_tally(tally(logits, data).tolist()), logits


def tally(logits: Tensor, data: GraphData) -> Tensor:
    """Cross entropy and confusion counts of the scored nodes in one tensor, so that one transfer to the CPU suffices.

    Shapes: logits [N - context, C], result [1 + C * C] in float64.
    """
    loss = F.cross_entropy(logits, data.scored_label)
    counts = confusion(data.scored_label, logits.argmax(1), logits.size(1))
    return torch.cat([loss.double().view(1), counts.double().flatten()])


def read_tally(values: list[float]) -> dict:
    """The metrics of :func:`evaluate` from the values of a :func:`tally`."""
    loss, *counts = values
    classes = isqrt(len(counts))
    return {"loss": loss, **metrics_of(np.array(counts, dtype=np.int64).reshape(classes, classes))}


def evaluate_selected(state: TrainingState, val: GraphData, test: GraphData) -> tuple[dict, dict[str, Tensor]]:
    """Load the weights of the selected epoch into the model and evaluate both splits.

    Returns:
        ``selected_epoch`` and the metrics of ``val`` and ``test``; the logits of both, [N - context, C].

    Raises:
        InputError: a loss is not finite.
    """
    state.model.load_state_dict(state.best_weights)
    metrics, logits = {"selected_epoch": state.best_epoch}, {}
    for split, data in (("val", val), ("test", test)):
        metrics[split], logits[split] = evaluate(state.model, data)
        check_loss(metrics[split]["loss"], split, state.best_epoch)
    return metrics, logits
