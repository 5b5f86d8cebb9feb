"""Complete trainings with and without an interruption, and all their results."""

import json

import pytest
import torch

from models.cemobam import CemoBAM
from utils.data.safe_pickle import load_tensors, save_tensors
from utils.training import loop
from utils.training.graph import prepare
from utils.training.loop import embed, evaluate_selected, fit, start_training
from utils.training.run import Progress, Run, claim, train_run


def trained(device, splits, config, tmp_path, stop: int = 2) -> dict:
    """Train to epoch ``stop``, save, restore in a new state, train to the end. Returns all results."""
    train, val, test = (prepare(splits[split], config, device, splits["train"]) for split in ("train", "val", "test"))
    log = []

    def state():
        torch.manual_seed(1)
        return start_training(CemoBAM(config.model, 6, 5, 4).to(device), config)

    first = state()
    fit(first, train, val, config.replace(epochs=stop), log.append)
    save_tensors(tmp_path / "state.pt", first.state_dict())
    second = state()
    torch.rand(3, device=device)  # advance the generators, as in another process
    second.load_state_dict(load_tensors(tmp_path / "state.pt"))
    fit(second, train, val, config, log.append)
    metrics, logits = evaluate_selected(second, val, test)
    for line in log:
        del line["seconds"]
    vectors = embed(second.model, test).cpu().numpy()
    return {
        "log": log,
        "metrics": metrics,
        "predictions": logits["test"].argmax(1).tolist(),
        "embeddings": vectors.tolist(),
    }


def left_by(run: Run) -> dict:
    """The contents of the folder of a finished run, without times."""
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    weights = load_tensors(run.folder / "best.pt")["weights"]
    return {
        "log": [{name: value for name, value in line.items() if name != "seconds"} for line in log],
        "metrics": json.loads((run.folder / "metrics.json").read_text()),
        "predictions": {split: (run.folder / f"{split}_predictions.csv").read_text() for split in ("val", "test")},
        "weights": {name: tensor.tolist() for name, tensor in weights.items()},
    }


def train(run: Run, device: torch.device) -> dict:
    """Train a run, and return the contents of its folder without the device."""
    with Progress([run]) as progress:
        for claimed in claim([run], progress):
            train_run(claimed, device, progress)
    left = left_by(run)
    del left["metrics"]["device"]
    return left


class Killed(BaseException):
    pass


def train_in_two(run: Run, monkeypatch, first: torch.device, second: torch.device) -> dict:
    """Train until a kill in the fourth epoch, then resume."""
    with monkeypatch.context() as patch:
        patch.setattr("utils.training.run.SAVE_SECONDS", 0)
        step = loop.train_step

        def killed(state, *args):
            if state.epoch == 3:
                raise Killed
            return step(state, *args)

        patch.setattr(loop, "train_step", killed)
        with pytest.raises(Killed):
            train(run, first)
    return train(run, second)
