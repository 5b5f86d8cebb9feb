"""Export a run as a folder with safetensors, encoders and a model card (``docs/export.md``)."""

import shutil
from pathlib import Path

import torch

from utils.data.provenance import PROVENANCE_FILE
from utils.data.safe_pickle import load_tensors, save_tensors
from utils.errors import InputError
from utils.extraction.hub import save_pretrained
from utils.io import atomic_write, exclusive
from utils.prediction.card import GROUPS_FILE, model_card
from utils.prediction.facts import read_facts
from utils.prediction.inductive import TrainingGraph
from utils.prediction.run_encoders import EXPORTED, load_run_encoder
from utils.training.folder import SEED_FOLDER
from utils.training.groups import write_groups
from utils.training.trained import EXPORTED_GRAPH, EXPORTED_MODEL, Trained, graph_file, model_file

UNFINISHED = ".unfinished_export"  # a file that marks the folder of an incomplete export


def export_run(trained: list[Trained], graph: TrainingGraph, encoders: dict[str, str | None], to: Path) -> int:
    """Write a new folder with everything that predict.py needs (models, training graph, encoders) and a model card.

    An encoder from the hub is copied only if the user gives its folder, because the training graph names its commit.

    Args:
        encoders: by modality, the folder that the user gives, or None.

    Returns:
        The size of the folder in bytes.

    Raises:
        InputError: the folder exists, a checkpoint is not of a finished seed, an encoder is not the run's, or a file
            that the model card reports from is damaged.
    """
    for each in trained:
        seed = each.path.parent
        if each.path != model_file(seed) or not (seed / "metrics.json").is_file():
            raise InputError(f"{each.path}: not the best.pt of a finished seed; only finished seeds can be exported")
    part = to.absolute().with_name(f"{to.absolute().name}.part")
    with exclusive(to.absolute()):
        if to.exists():
            raise InputError(f"--export {to}: already exists; choose another folder, or remove it")
        if part.exists() and not (part / UNFINISHED).is_file():
            raise InputError(f"{part}: --export needs this path; move the existing file or folder elsewhere")
        shutil.rmtree(part, ignore_errors=True)  # left by a kill -9
        part.mkdir()
        try:
            (part / UNFINISHED).touch()
            _write_export(trained, graph, encoders, part)
            (part / UNFINISHED).unlink()
            part.replace(to)
        except BaseException:  # including Ctrl-C
            shutil.rmtree(part)
            raise
    return sum(path.stat().st_size for path in to.rglob("*") if path.is_file())


def _write_export(trained: list[Trained], graph: TrainingGraph, encoders: dict[str, str | None], to: Path) -> None:
    run, facts = trained[0].run_folder, read_facts(trained, graph)
    atomic_write(to / "README.md", model_card(facts).encode())
    if facts.groups:
        write_groups(to / GROUPS_FILE, facts.groups)
    for each in trained:
        seed = to / SEED_FOLDER.format(each.seed)
        save_tensors(seed / EXPORTED_MODEL, load_tensors(each.path))
        shutil.copy(each.path.with_name("metrics.json"), seed)
    save_tensors(to / EXPORTED_GRAPH, load_tensors(graph_file(run)))
    for modality, given in encoders.items():
        known = graph.encoders.get(modality)
        if given is None and known and known["revision"] and not (run / EXPORTED[modality]).is_dir():
            continue
        encoder = load_run_encoder(modality, graph, run, given, torch.device("cpu"))
        save_pretrained(encoder, to / EXPORTED[modality])
        tuned = Path(encoder.model.name_or_path) / PROVENANCE_FILE
        if tuned.is_file():
            shutil.copy(tuned, to / EXPORTED[modality])
        load_run_encoder(modality, graph, to, None, torch.device("cpu"))  # check that it is the same encoder
