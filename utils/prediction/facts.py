"""Facts about a run for its model card, read from the files of the run."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from utils.config import SPLITS
from utils.data.features import read_info
from utils.errors import InputError
from utils.prediction.inductive import TrainingGraph
from utils.training.folder import PREDICTIONS, read_metrics
from utils.training.groups import group_results
from utils.training.predictions import read_predictions
from utils.training.scores import Scored
from utils.training.trained import Trained


@dataclass(frozen=True)
class Facts:
    """Facts about a run.

    Attributes:
        metrics: ``metrics.json`` of each model.
        encoders: by modality, from the training graph; {} if the features do not name them.
        scored: the test predictions of all seeds; None unless every seed has its file.
        info: the JSON next to the training features; None if it is missing or describes other features.
    """

    trained: list[Trained]
    metrics: list[dict]
    encoders: dict
    scored: Scored | None
    info: dict | None

    @cached_property
    def groups(self) -> list[dict]:
        """Rows of :func:`~utils.training.groups.group_results`; empty without predictions."""
        if self.scored is None:
            return []
        found = self.scored.predictions
        return group_results(found.identity, found.label, found.prediction, found.class_names)


def read_facts(trained: list[Trained], graph: TrainingGraph) -> Facts:
    """Read the facts that :func:`~utils.prediction.card.model_card` reports about a run's finished seeds.

    Raises:
        InputError: a file is damaged, or the predictions are not those of ``metrics.json``.
    """
    first = trained[0]
    metrics = [read_metrics(each.path.parent, each.seed, each.config.epochs) for each in trained]
    paths = [each.path.with_name(PREDICTIONS.format("test")) for each in trained]
    scored = Scored(read_predictions(paths)) if all(path.is_file() for path in paths) else None
    if scored:
        for path, of_seed, counts in zip(paths, metrics, scored.counts.sum(0).tolist(), strict=True):
            if scored.predictions.class_names != first.class_names or counts != of_seed["test"]["confusion"]:
                raise InputError(f"{path}: does not match the metrics.json next to it")
    info = read_info(Path(first.data["train"]["path"]))
    if info and any(info["files"][split].get("sha256") != first.data[split]["sha256"] for split in SPLITS):
        info = None
    return Facts(trained, metrics, graph.encoders, scored, info)
