"""Train the rows that are not finished yet; two commands side by side share them."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from utils.checkpoints import load_trained
from utils.cli import Setup
from utils.config import DATASETS, display_name, feature_path, make_config
from utils.demo import write_demo
from utils.engine import embed
from utils.errors import InputError, one_line
from utils.experiment import Experiment, open_run, train_run
from utils.features import SPLITS, load_splits
from utils.graph_data import check_neighbors_of_splits, prepare
from utils.locks import try_lock
from utils.plots import plot_tsne
from utils.reproduction.results import read_result
from utils.reproduction.rows import Row, demo_folder
from utils.reproduction.tables import tsne_path
from utils.runs import SEED_FOLDER

POLL_SECONDS = 1.0  # between looks at the rows that another command has


def train_rows(work: Sequence[tuple[Row, Setup]], seeds: Sequence[int]) -> list[str]:
    """Train every row; what another command trains is left to it, and taken over if it was killed.

    Returns:
        The rows that failed, each with its error; the others are trained all the same.

    Raises:
        InputError: a row's folder holds another configuration or other data; nothing is trained then.
    """
    experiments = {row: _experiment(row, setup) for row, setup in work}
    for experiment in experiments.values():
        open_run(experiment, seeds, resume=True, overwrite=False)
    failed = []
    left = [row for row in experiments if not read_result(row, seeds).complete]
    print(f"{len(work)} rows, {len(work) - len(left)} of them finished before")
    while left:
        for row in left:
            row.folder.mkdir(parents=True, exist_ok=True)
            with (row.folder / ".lock").open("ab") as file, try_lock(file) as mine:
                if not mine:
                    continue
                left.remove(row)
                if not read_result(row, seeds).complete:
                    print(f"\n{row.dataset}: {row.title} ({row.folder}), {len(left)} rows after it", flush=True)
                    try:
                        _train(experiments[row], seeds)
                    except torch.AcceleratorError:  # the GPU itself is in error, and would fail every row after it
                        raise
                    except (InputError, RuntimeError, MemoryError) as error:
                        failed.append(f"{row.dataset}, {row.title}: {type(error).__name__}: {one_line(error)}")
                        print(f"failed: {failed[-1]}", flush=True)
            break
        else:
            time.sleep(POLL_SECONDS)
    return failed


def _experiment(row: Row, setup: Setup) -> Experiment:
    check_neighbors_of_splits(setup.splits, row.config)
    return Experiment(row.config, row.folder, setup.splits, setup.class_names, setup.device, keep_weights=row.headline)


def _train(experiment: Experiment, seeds: Sequence[int]) -> None:
    config, splits, device = experiment.config, experiment.splits, experiment.device
    train = prepare(splits["train"], config, device)
    train_run(experiment, seeds, train, prepare(splits["val"], config, device, splits["train"]))


def draw_tsne(row: Row, setup: Setup, seeds: Sequence[int]) -> None:
    """The t-SNE of a profile's own run, first seed; the one figure of the report that needs the weights."""
    path = tsne_path(row.folder, seeds[0])
    if path.is_file() or not read_result(row, seeds).complete:
        return
    weights = row.folder / SEED_FOLDER.format(seeds[0]) / "best.pt"
    if not weights.is_file():
        print(f"no t-SNE of {row.dataset}, {row.config.profile}: {weights} is gone")
        return
    trained = load_trained(weights)
    test = prepare(setup.splits["test"], row.config, setup.device, setup.splits["train"])
    embeddings = embed(trained.model.to(setup.device), test).cpu().numpy()
    title = f"{display_name(row.dataset)} test, profile {row.config.profile}, seed {seeds[0]}"
    title += "\nlast hidden layer of the classifier"
    plot_tsne(path, embeddings, test.scored_label.cpu().numpy(), setup.class_names, title)


def demo_setup(root: Path, agreement: float, device: torch.device) -> Setup:
    """DEMO whose scenes agree so much, made anew in a folder of its own."""
    folder = demo_folder(root, agreement) / "feature"
    write_demo(folder, agreement)
    names = DATASETS["DEMO"].class_names
    splits, _ = load_splits({split: feature_path(folder, "DEMO", split) for split in SPLITS}, len(names))
    return Setup(make_config({"dataset": "DEMO"}), splits, names, device)
