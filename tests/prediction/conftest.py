"""A run on TONES, and predict.py as a user calls it."""

import json

import pytest

import predict
import train

TRAINING = ["--hidden_dim", 16, "--epochs", 3, "--lr", 1e-2, "--k_text", 3, "--k_audio", 3, "--seeds", 1, 2]


@pytest.fixture
def trained(tones, run):
    """The run folder of a training on TONES."""
    options = ["--dataset", "TONES", "--save_path", tones / "runs", "--model_name", "r", *TRAINING]
    code, _, err = run(train.main, *options)
    assert code == 0, err
    return tones / "runs" / "TONES" / "r"


def ask(run, checkpoint, *options):
    return run(predict.main, "--checkpoint", checkpoint, "--device", "cpu", *options)


def answers(out):
    return [json.loads(line) for line in out.splitlines()]
