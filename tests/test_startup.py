"""Options are read before anything heavy is imported, and a training imports only what it needs."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment

HEAVY = {"torch", "torch_geometric", "transformers", "torchaudio", "sklearn", "scipy", "pandas", "matplotlib", "numpy"}
WRONG = {  # options that the parser refuses, and options that our checks refuse
    "train": ["--epochs", "0"],
    "compare": ["run", "run", "--split", "train"],
    "eval": ["--split", "all"],
    "sweep": ["--k_text", "0"],
    "reproduce": ["--lr", "0"],
    "predict": ["--checkpoint", "run"],
    "finetune": ["IEMOCAP", "--modality", "audio", "--epochs", "0"],
    "extract_features": ["IEMOCAP", "--batch_seconds", "0"],
}


def run(script: str, *options: str) -> tuple[int, str, set[str]]:
    """Exit code, last line of the errors, and the packages that were imported."""
    command = [sys.executable, "-X", "importtime", f"{script}.py", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "argparse" in imported
    return done.returncode, lines[-1], {name.partition(".")[0] for name in imported}


@pytest.mark.parametrize("script", WRONG)
def test_help_imports_nothing_heavy(script):
    code, _, imported = run(script, "--help")
    assert (code, imported & HEAVY) == (0, set())


def test_a_wrong_confidence_is_reported_before_anything_heavy_is_imported():
    code, message, imported = run("predict", "--checkpoint", "run", "--wav", "a.wav", "--min_confidence", "1.0")
    assert (code, imported & HEAVY) == (2, set())
    assert message == "error: --min_confidence 1.0: must be above 0 and below 1"


@pytest.mark.parametrize("script", WRONG)
def test_a_wrong_option_is_reported_before_anything_heavy_is_imported(script):
    for options in (WRONG[script], ["--no_such_option"]):
        code, message, imported = run(script, *options)
        assert (code, imported & HEAVY) == (2, set())
        assert "error: " in message


TRAINING = """
import sys
import train
from utils.training import run
run.report = lambda *args: print("modules", *sys.modules)  # at the end of a training, before a figure is drawn
train.main()
"""


def test_a_training_imports_neither_other_libraries_nor_the_compiler(tmp_path, feature_dir):
    options = ["--dataset", "TOY", "--epochs", "2", "--hidden_dim", "16", "--k_text", "3", "--k_audio", "2"]
    options += ["--seeds", "1", "--feature_dir", str(feature_dir), "--save_path", str(tmp_path / "runs")]
    command = [sys.executable, "-c", TRAINING, *options]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.splitlines()[-1].split())
    assert imported & {*HEAVY, "torch._dynamo"} == {"torch", "numpy"}
