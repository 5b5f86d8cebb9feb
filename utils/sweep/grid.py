"""One cell of the grid: a graph sliced from the shared neighbour lists, a training, its figures."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import torch

from utils.config import Config, profile_defaults, run_name
from utils.engine import build_model, evaluate_selected, fit, start_training
from utils.errors import InputError
from utils.features import SPLITS
from utils.graph_data import SplitNodes
from utils.runs import set_seed

K_VALUES = tuple(range(1, 11))  # of k_text and of k_audio, in the paper


@dataclass(frozen=True, order=True)
class Cell:
    """One training of the grid. What tables and Fig. 2 call a cell is the mean over its seeds."""

    k_text: int
    k_audio: int
    seed: int

    @property
    def name(self) -> str:
        return f"k{self.k_text}_{self.k_audio}_seed{self.seed}"

    def __str__(self) -> str:
        return f"k_text {self.k_text}, k_audio {self.k_audio}, seed {self.seed}"


def grid(k_texts: Sequence[int], k_audios: Sequence[int], seeds: Sequence[int]) -> list[Cell]:
    """Every cell, seed by seed, so that the first seed's pass already shows the whole picture."""
    return [Cell(k_text, k_audio, seed) for seed in seeds for k_text in k_texts for k_audio in k_audios]


def as_published(options: dict) -> dict:
    """The options of a grid's configuration: of profile official with the learning rate's decay of the published sweep.

    The published training decays by 0.3.
    """
    return {"lr_decay": 0.5, **options} if options.get("profile") == "official" else options


def without_k(config: Config) -> dict:
    """What a sweep's ``config.json`` holds: its folder may take any k and seed."""
    return {name: value for name, value in asdict(config).items() if name not in ("k_text", "k_audio")}


def sweep_name(config: Config) -> str:
    """``topk-`` and the name of a run, in which k has no part."""
    own = profile_defaults(config.profile, config.dataset)
    return "topk-" + run_name(replace(config, k_text=own["k_text"], k_audio=own["k_audio"]))


@dataclass(frozen=True)
class SweepData:
    """What the cells share: all but k and the seed.

    Attributes:
        config: its ``k_text`` and ``k_audio`` are the greatest of the grid, the length of the neighbour lists.
        nodes: train, val and test, with the neighbour lists that every cell's graph is sliced from.
    """

    config: Config
    nodes: dict[str, SplitNodes]
    num_classes: int

    def to(self, device: torch.device) -> "SweepData":
        return replace(self, nodes={split: nodes.to(device) for split, nodes in self.nodes.items()})

    @cached_property
    def dims(self) -> tuple[int, int]:
        return self.nodes["train"].text.size(1), self.nodes["train"].audio.size(1)


def train_cell(data: SweepData, cell: Cell, on_epoch: Callable[[dict], None]) -> dict:
    """Train one cell, to the same figures as ``train.py`` with the same k and seed.

    Returns:
        k, seed, ``selected_epoch``, the figures of ``val`` and ``test``, and ``seconds``.

    Raises:
        InputError: a loss is not finite.
    """
    begin = time.perf_counter()
    config = replace(data.config, k_text=cell.k_text, k_audio=cell.k_audio)
    train, val, test = (data.nodes[split].graph_data(config) for split in SPLITS)
    set_seed(cell.seed)
    model = build_model(config, *data.dims, data.num_classes)
    state = start_training(model.to(train.text.device), config)
    fit(state, train, val, config, on_epoch)
    figures, _ = evaluate_selected(state, val, test)
    return {**vars(cell), **figures, "seconds": round(time.perf_counter() - begin, 3)}


def attempt_cell(
    data: SweepData, cell: Cell, device: torch.device, on_epoch: Callable[[dict], None] = lambda line: None
) -> dict:
    """:func:`train_cell`; where it fails, k, the seed and the ``error``, so that the sweep can go on without it."""
    try:
        return train_cell(data.to(device), cell, on_epoch)
    except torch.AcceleratorError:  # the GPU itself is in error, and would fail every cell after this one
        raise
    except (InputError, RuntimeError, MemoryError) as error:  # a loss, torch (out of memory is one of its), the system
        return failure(cell, error)


def failure(cell: Cell, error: Exception) -> dict:
    message = " ".join(str(error).split()) or "no message"
    return {**vars(cell), "error": f"{type(error).__name__}: {message}"}
