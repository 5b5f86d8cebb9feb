"""The shell scripts and their Python scripts, end to end, as a user runs them."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch

import eval as evaluation
import train
from tests.conftest import ROOT, environment, make_rows, write_pickle, write_toy
from tests.reference import OfficialReference, randomised
from utils.config import default_feature_dir
from utils.training.calibration import SCORES
from utils.training.predictions import read_predictions

TINY = ["--hidden_dim", "16", "--epochs", "3", "--seeds", "1", "2", "--k_text", "3", "--k_audio", "2", "--lr", "0.01"]
FIGURES = ("confusion_matrix", "reliability", "risk_coverage")
EVALUATED = {"test.json", "test_groups.csv", *(f"test_{name}.{kind}" for name in FIGURES for kind in ("png", "pdf"))}
OF_OTHERS = {f"test_seed{seed}_predictions.csv" for seed in (1, 2)}  # for features that the training did not have


def bash(script: str, *args: object, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    command = ["bash", str(ROOT / script), *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def first_training(tmp_path_factory):
    """A folder with ``feature`` and ``runs`` of TOY, a copy of it, the command of its training, and its output."""
    folder, printed = tmp_path_factory.mktemp("trained"), io.StringIO()
    places = ["--save_path", str(folder / "runs"), "--feature_dir", str(write_toy(folder / "feature"))]
    command = ["train.py", "--dataset", "TOY", *TINY, *places]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(sys, "argv", command)
        train.main()
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("kept") / "trained")
    return folder, copy, command, printed.getvalue()


@pytest.fixture
def trained(first_training, monkeypatch):
    """The ``runs`` folder with a finished run of TOY, next to its ``feature`` folder, and the training's output."""
    folder, copy, command, printed = first_training
    shutil.rmtree(folder)  # another test may have changed it; checkpoints name their features, so the path is the same
    shutil.copytree(copy, folder)
    monkeypatch.setattr(sys, "argv", command)
    return folder / "runs", printed


def table(output: str) -> list[str]:
    """The rows of metrics, with white space collapsed."""
    rows = [" ".join(line.split()) for line in output.splitlines()]
    return [row for row in rows if re.match(r"(seed \d+|mean ± std) \d", row)]


def test_train_then_evaluate_prints_the_same_digits(tmp_path, feature_dir, run, monkeypatch):
    runs = tmp_path / "runs"
    result = bash("run_training.sh", "TOY", *TINY, "--save_path", runs, FEATURE_DIR=str(feature_dir))
    assert result.returncode == 0, result.stderr
    output = result.stdout
    assert re.search(r"hidden_dim +16 \*\n", output)
    assert re.search(r"device (cpu|cuda)", output)
    assert re.search(r"parameters [\d,]+\n", output)
    assert re.search(r"graph train: 40 nodes, \d+ edges .* homophily 0\.\d+", output)
    assert "2/2): 100%" in result.stderr  # the progress bar
    assert len(table(output)) == 3

    evaluated = bash("run_eval.sh", "TOY", "--save_path", runs)
    assert evaluated.returncode == 0, evaluated.stderr
    assert table(output) == table(evaluated.stdout)[:3]
    assert "note" not in evaluated.stdout
    folder = next((runs / "TOY").iterdir())
    assert {p.name for p in folder.iterdir() if p.suffix != ".lock"} == {
        *("seed1", "seed2", "eval", "probe"),
        *("summary.json", "training_curves.png", "training_curves.pdf", "training_graph.pt"),
    }
    assert {p.name for p in (folder / "eval").iterdir()} == EVALUATED
    recall = json.loads((folder / "eval" / "test.json").read_text())["seed 1"]["recall"]
    assert " ".join(f"{100 * r:.2f}" for r in recall) in " ".join(evaluated.stdout.split())
    monkeypatch.chdir(folder.parent)
    code, relative, _ = run(evaluation.main, f"{folder.name}/seed1/best.pt")
    assert code == 0
    assert table(relative)[0] == table(output)[0]


@pytest.mark.parametrize("place", ["", "seed1", "seed1/best.pt"])
def test_every_kind_of_target(trained, capsys, monkeypatch, place):
    runs, output = trained
    run = next((runs / "TOY").iterdir())
    monkeypatch.setattr(sys, "argv", ["eval.py", str(run / place)])
    evaluation.main()
    assert table(capsys.readouterr().out)[0] == table(output)[0]


def test_calibration_and_groups_are_in_the_json_as_printed(trained, run):
    runs, _ = trained
    feature_dir, folder = runs.with_name("feature"), next((runs / "TOY").iterdir())
    who = "\n".join(f"{i},{'uv'[i % 2]}" for i in range(24))
    for split in ("val", "test"):
        (feature_dir / f"TOY_BERT_WAV2VEC_{split}.csv").write_text(f"audio_file,speaker\n{who}\n")
        code, output, _ = run(evaluation.main, folder, "--split", split)
        assert code == 0
        saved = json.loads((folder / "eval" / f"{split}.json").read_text())
        predictions = read_predictions([folder / f"seed{seed}" / f"{split}_predictions.csv" for seed in (1, 2)])
        for i, seed in enumerate((1, 2)):
            found = saved["calibration"][f"seed {seed}"]
            metrics = json.loads((folder / f"seed{seed}" / "metrics.json").read_text())
            assert found["temperature"] == metrics["temperature"] != 1
            assert found["plain"]["cross_entropy"] == pytest.approx(metrics[split]["loss"], rel=1e-5)
            scores = {name: score(predictions.probability, predictions.label)[i] for name, score in SCORES.items()}
            assert found["scaled"] == pytest.approx(scores, abs=1e-4)
            assert f"{found['temperature']:.3f}" in output
        assert ("T was fitted on these utterances" in output) == (split == "val")
        mean = np.mean([saved[f"seed {seed}"]["wa"] for seed in (1, 2)])
        rows = [row for row in saved["groups"] if row["kind"] == "speaker"]
        assert [(row["group"] in "uv", row["utterances"]) for row in rows] == [(True, 12)] * 2
        assert np.mean([row["wa"] for row in rows]) == pytest.approx(mean)
        assert f"worst speaker: {rows[0]['group']}, WA {100 * rows[0]['wa']:.1f}, 12 utterances" in output
        written = list(csv.DictReader((folder / "eval" / f"{split}_groups.csv").read_text().splitlines()))
        assert [(row["kind"], row["group"]) for row in written] == [(r["kind"], r["group"]) for r in saved["groups"]]


def test_logits_that_are_not_finite_are_said(trained, call):
    runs, _ = trained
    path = next((runs / "TOY").iterdir()) / "seed1" / "best.pt"
    saved = torch.load(path, weights_only=True)
    for tensor in saved["weights"].values():
        if tensor.is_floating_point():
            tensor *= 1e30
    torch.save(saved, path)
    assert call(evaluation.main, path) == (
        2,
        f"error: {path}: the logits are not finite; the checkpoint may be damaged",
    )


def test_graph_with_training_utterances_is_evaluated_from_the_path_alone(tmp_path, feature_dir, call, capsys):
    runs = ["--save_path", tmp_path / "runs"]
    options = ["--dataset", "TOY", *TINY, "--graph_scope", "with_train", "--feature_dir", feature_dir]
    assert not call(train.main, *options, *runs)[0]
    assert not call(evaluation.main, "TOY", *runs)[0]
    run = next((tmp_path / "runs" / "TOY").iterdir())
    metrics = json.loads((run / "eval" / "test.json").read_text())["seed 1"]
    assert metrics == json.loads((run / "seed1" / "metrics.json").read_text())["test"]


def test_training_again_keeps_what_is_finished(trained, capsys):
    _, output = trained
    train.main()
    captured = capsys.readouterr()
    assert "epoch" not in captured.err  # no progress bar, because nothing is trained
    assert table(captured.out) == table(output)


def test_one_seed_more_and_train_and_eval_still_agree(trained, monkeypatch, capsys):
    """The table of train.py, summary.json and eval.py contain every finished seed of the folder."""
    runs, _ = trained
    run = next((runs / "TOY").iterdir())
    place = sys.argv.index("--seeds")
    monkeypatch.setattr(sys, "argv", [*sys.argv[: place + 1], "7", *sys.argv[place + 3 :]])
    train.main()
    printed = table(capsys.readouterr().out)
    assert [row.split()[1] for row in printed[:3]] == ["1", "2", "7"]
    assert list(json.loads((run / "summary.json").read_text())["test"]["seeds"]) == ["1", "2", "7"]
    monkeypatch.setattr(sys, "argv", ["eval.py", str(run)])
    evaluation.main()
    assert table(capsys.readouterr().out)[:4] == printed


def test_a_folder_of_the_datasets_name_does_not_hide_its_runs(trained, tmp_path, monkeypatch, call):
    runs, _ = trained
    (tmp_path / "TOY").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not call(evaluation.main, "TOY", "--save_path", runs)[0]


def test_a_tsne_takes_a_hundred_utterances(trained, tmp_path, run):
    runs, _ = trained
    for count in (99, 100):
        test = write_pickle(tmp_path / f"{count}.pkl", make_rows(count))
        options = ["--save_path", runs, "--test_path", test, "--out", tmp_path / f"{count}"]
        code, output, _ = run(evaluation.main, "TOY", *options)
        drawn = {p.name for p in (tmp_path / f"{count}").iterdir()} - EVALUATED - OF_OTHERS
        assert (code, drawn) == (0, {"test_tsne.png", "test_tsne.pdf"} if count == 100 else set())
        assert ("no t-SNE: 99 utterances, at least 100 are needed" in output) == (count == 99)


def test_predictions_of_other_features_and_of_train_are_written(trained, tmp_path, run):
    """The predictions of val and test are in the folders of the seeds."""
    runs, _ = trained
    test = write_pickle(tmp_path / "other.pkl", make_rows(12, seed=7))
    for options in (["--test_path", test], ["--split", "train"], ["--split", "val"]):
        code, _, _ = run(evaluation.main, "TOY", "--save_path", runs, "--out", tmp_path / "out", *options)
        assert code == 0
    assert {path.name for path in (tmp_path / "out").glob("*predictions.csv")} == {
        f"{split}_seed{seed}_predictions.csv" for split in ("test", "train") for seed in (1, 2)
    }
    found = read_predictions([tmp_path / "out" / f"train_seed{seed}_predictions.csv" for seed in (1, 2)])
    saved = json.loads((tmp_path / "out" / "train.json").read_text())
    assert [saved[f"seed {seed}"]["wa"] for seed in (1, 2)] == (found.prediction == found.label).mean(1).tolist()


@pytest.mark.drawn
def test_three_utterances_are_evaluated(tmp_path, feature_dir, call):
    runs = ["--save_path", tmp_path / "runs"]
    options = ["--dataset", "TOY", *TINY, "--graph_scope", "with_train", "--feature_dir", feature_dir]
    assert not call(train.main, *options, *runs)[0]
    small = write_pickle(tmp_path / "small.pkl", make_rows(4)[:3])
    assert not call(evaluation.main, "TOY", *runs, "--test_path", small)[0]
    run = next((tmp_path / "runs" / "TOY").iterdir())
    assert {p.name for p in (run / "eval").iterdir()} == EVALUATED | OF_OTHERS


def test_a_changed_file_is_noted_in_evaluation(trained, monkeypatch, capsys):
    runs, _ = trained
    write_pickle(runs.with_name("feature") / "TOY_BERT_WAV2VEC_test.pkl", make_rows(20, seed=9))
    monkeypatch.setattr(sys, "argv", ["eval.py", "TOY", "--save_path", str(runs)])
    evaluation.main()
    assert "differs from the test data of the training" in capsys.readouterr().out


BAD = {
    "unknown option": (["--learning_rate", "1"], "unrecognized arguments: --learning_rate"),
    "abbreviated option": (["--epoch", "1"], "unrecognized arguments: --epoch"),
    "unknown choice": (["--fusion_type", "sum"], "invalid choice: 'sum'"),
    "k too large": (["--k_text", "24"], r"--k_text 24: .*_val\.pkl has 24 utterances, so each has at most 23"),
    "missing file": (["--test_path", "nowhere.pkl"], r"nowhere\.pkl: no such file; expected the test features of TOY"),
    "classes": (["--num_classes", "3"], r"_train\.pkl: row 3: label 3 is out of range \(3 classes, 0 to 2"),
    "too many classes": (["--num_classes", "5"], r"_train\.pkl: class 4 of 5 has no utterance in train"),
    "cuda": (["--device", "cuda"], "--device cuda: torch finds no CUDA device"),
    "same seed twice": (["--seeds", "1", "1"], "--seeds 1 1: must be distinct"),
    "name with a slash": (["--model_name", "../x"], r"--model_name \.\./x: must consist of letters"),
    "epochs": (["--epochs", "0"], "--epochs 0: must be at least 1"),
}


@pytest.mark.parametrize("options, message", BAD.values(), ids=BAD)
def test_bad_options_end_in_one_line_and_leave_nothing(tmp_path, feature_dir, call, options, message):
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    places = ["--feature_dir", feature_dir, "--save_path", tmp_path / "runs"]
    code, line = call(train.main, "--dataset", "TOY", *TINY, *options, *places)
    assert code == 2
    assert re.search(message, line)
    assert not (tmp_path / "runs").exists()


def test_bad_rows_reach_the_user_as_one_line(tmp_path, feature_dir):
    rows = make_rows(24)
    rows[7]["audio_embed"] = np.full(5, np.nan)
    write_pickle(feature_dir / "TOY_BERT_WAV2VEC_val.pkl", rows)
    result = bash("run_training.sh", "TOY", *TINY, "--save_path", tmp_path / "runs", FEATURE_DIR=str(feature_dir))
    assert result.returncode == 2
    path = feature_dir / "TOY_BERT_WAV2VEC_val.pkl"
    assert result.stderr == f"error: {path}: row 7: audio_embed has the invalid value nan at position 0\n"
    assert not (tmp_path / "runs").exists()


def test_run_folder_of_another_configuration_is_refused(trained, call):
    runs, _ = trained
    run = next((runs / "TOY").iterdir())
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    places = ["--save_path", runs, "--feature_dir", runs.with_name("feature")]
    options = [*TINY, "--dropout", "0.1", "--model_name", run.name, *places]
    for extra in ([], ["--resume"]):
        code, line = call(train.main, "--dataset", "TOY", *options, *extra)
        assert code == 2
        assert "contains a run with another configuration (dropout was 0.3, now 0.1)" in line
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_evaluation_of_what_does_not_fit_is_refused(trained, tmp_path, call):
    runs, _ = trained
    target = ["TOY", "--save_path", runs]
    swapped = write_pickle(tmp_path / "other.pkl", make_rows(24, dims=(5, 6)))
    code, line = call(evaluation.main, *target, "--test_path", swapped)
    assert code == 2
    assert "dimensions are text 5, audio 6" in line
    assert "text and audio seem to be swapped" in line
    beyond = write_pickle(tmp_path / "beyond.pkl", make_rows(24, classes=6))
    code, line = call(evaluation.main, *target, "--test_path", beyond)
    assert code == 2
    assert "row 4: label 4 is out of range (4 classes, 0 to 3)" in line
    code, line = call(evaluation.main, *target, "--k_text", 3)
    assert code == 2
    assert "--k_text: only with --profile official" in line
    code, line = call(evaluation.main, *target, "--profile", "official")
    assert code == 2
    assert "trained with profile paper, not official" in line
    (runs.with_name("feature") / "TOY_BERT_WAV2VEC_test.pkl").unlink()
    code, line = call(evaluation.main, *target)
    assert code == 2
    assert "TOY_BERT_WAV2VEC_test.pkl: no such file" in line


def test_checkpoints_of_two_configurations_are_not_averaged(trained, call):
    runs, _ = trained
    run = next((runs / "TOY").iterdir())
    options = [*TINY, "--fusion_type", "max", "--seeds", "9", "--model_name", "other", "--save_path", runs]
    assert not call(train.main, "--dataset", "TOY", *options, "--feature_dir", runs.with_name("feature"))[0]
    (runs / "TOY" / "other" / "seed9").rename(run / "seed9")
    code, line = call(evaluation.main, run)
    assert code == 2
    assert re.search(r"seed9/best\.pt: its configuration differs from that of .*seed1/best\.pt", line)


def test_paths_alone_name_the_dataset(tmp_path, feature_dir, call):
    names = {"train": "train", "valid": "val", "test": "test"}
    paths = [f"--{o}_path={feature_dir}/TOY_BERT_WAV2VEC_{s}.pkl" for o, s in names.items()]
    assert not call(train.main, *paths, *TINY, "--save_path", tmp_path / "runs", "--model_name", "mine")[0]
    assert (tmp_path / "runs" / "TOY" / "mine" / "summary.json").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_stopped_and_resumed_ends_at_the_same_numbers(tmp_path, feature_dir, run, signum):
    """Only the stopped training is a separate process, with as many threads."""

    def options(folder: str) -> list:
        places = ["--feature_dir", feature_dir, "--save_path", tmp_path / folder, "--model_name", "m"]
        return ["--dataset", "TOY", *TINY, "--epochs", "100", "--seeds", "1", *places]

    assert run(train.main, *options("whole"))[0] == 0
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *options("stopped")],
        env=environment(OMP_NUM_THREADS=str(torch.get_num_threads())),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    seed = tmp_path / "stopped" / "TOY" / "m" / "seed1"
    deadline = time.monotonic() + 120
    while not (seed / "log.jsonl").exists() or len((seed / "log.jsonl").read_text().splitlines()) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signum)
    error = process.communicate()[1].decode()
    assert not (seed / "metrics.json").exists(), "it finished before it was stopped"
    if signum == signal.SIGINT:
        assert process.returncode == 130
        assert "resume with train.py --resume" in error
    code, _, refused = run(train.main, *options("stopped"))
    assert code == 2
    assert "holds an unfinished run; add --resume" in refused
    assert run(train.main, *options("stopped"), "--resume")[0] == 0
    for name in ("seed1/metrics.json", "summary.json"):
        contents = [(tmp_path / folder / "TOY" / "m" / name).read_bytes() for folder in ("whole", "stopped")]
        assert contents[0] == contents[1]
    assert len((seed / "log.jsonl").read_text().splitlines()) == 100


def test_official_checkpoint(tmp_path, run, call):
    reference = randomised(OfficialReference(text_dim=6, audio_dim=5, dim=16, classes=5, fusion="max"))
    path = tmp_path / "ESD_HemoGAT_max.pt"
    torch.save(reference.state_dict(), path)
    test = write_pickle(tmp_path / "test.pkl", make_rows(30, classes=5))
    code, output, error = run(evaluation.main, path, "--profile", "official", "--test_path", test)
    assert code == 0, error
    assert "surprise" in output
    assert (tmp_path / "ESD_HemoGAT_max_eval" / "test_confusion_matrix.png").exists()
    code, hint = call(evaluation.main, path, "--test_path", test)
    assert code == 2
    assert "a plain state dict; if the published code wrote it, add --profile official" in hint


def test_a_diverged_training_ends_with_exit_code_1_and_every_seed_named(tmp_path, feature_dir, run):
    options = [*TINY, "--lr", "1e30", "--feature_dir", feature_dir, "--save_path", tmp_path / "runs"]
    code, output, errors = run(train.main, "--dataset", "TOY", *options)
    assert code == 1
    for seed in (1, 2):
        assert re.search(rf"failed: .*, seed {seed}: epoch \d: the (training|validation) loss is \w+; try", output)
    assert "Traceback" not in errors


def test_unfit_environment_is_named_and_not_used(tmp_path):
    """The check that decides whether the active environment is used, with a requirement that none can meet."""
    (tmp_path / "requirements.txt").write_text("torch==0.0.1\n")
    script = f'source <(sed "/^active=/,\\$d" {ROOT}/utils/environment.sh); ROOT={tmp_path}; satisfies {sys.executable}'
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert result.returncode != 0
    assert f"it has torch {torch.__version__.split('+')[0]}, but requirements.txt requires 0.0.1" in result.stderr


def test_environment_is_made_once_and_mended_when_broken(tmp_path):
    """With an empty requirements file, so that nothing is downloaded."""
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "environment.sh").write_text((ROOT / "utils" / "environment.sh").read_text())
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    outside = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX")}

    def source() -> str:
        script = f"set -euo pipefail; source {tmp_path}/utils/environment.sh; $PYTHON -c 'print(6 * 7)'"
        result = subprocess.run(["bash", "-c", script], env=outside, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert result.stdout.endswith("42\n")
        return result.stdout

    assert "creating the environment .venv" in source()
    assert source() == "42\n"
    python = tmp_path / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere")  # its Python was removed from the system
    assert "creating the environment .venv" in source()


@pytest.mark.parametrize("script", ["reproduce", "run_eval", "run_training", "selected_topK"])
@pytest.mark.parametrize("folder, name", [(" a", "repo"), ("a b", "-r p$o")])
def test_the_scripts_find_their_folder_from_any_other(tmp_path, monkeypatch, folder, name, script):
    """By a relative path, with variables that a shell may have exported."""
    root = tmp_path / folder / name
    (root / "utils").mkdir(parents=True)
    (tmp_path / "elsewhere" / name / "utils").mkdir(parents=True)
    for path in (f"{script}.sh", "utils/environment.sh"):
        shutil.copy(ROOT / path, root / path)
    (root / "requirements.txt").write_text("# nothing\n")
    program = {"run_eval": "eval", "run_training": "train", "selected_topK": "sweep"}.get(script, script)
    code = "import os, sys\nfrom utils import here\nprint(here.__file__, sys.argv[1:], os.getcwd())\n"
    (root / f"{program}.py").write_text(code)
    for module in ("__init__", "here"):
        (root / "utils" / f"{module}.py").touch()
    (tmp_path / "elsewhere" / "utils.py").touch()
    for variable, value in {
        "CDPATH": f"{tmp_path}/elsewhere",
        "PYTHONPATH": f"{tmp_path}/elsewhere",
        "PYTHONSAFEPATH": "1",
        "PYTHONHOME": "/nowhere",
    }.items():
        monkeypatch.setenv(variable, value)
    command = ["bash", "--", f"{name}/{script}.sh", "--a b", "*"]
    result = subprocess.run(command, cwd=root.parent, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{root}/utils/here.py ['--a b', '*'] {root.parent}\n"  # the base of relative paths


@pytest.mark.slow
def test_demo_makes_its_features_and_trains(tmp_path):
    options = [
        "--epochs",
        "12",
        "--hidden_dim",
        "64",
        "--lr",
        "0.001",
        "--seeds",
        "42",
        "--save_path",
        tmp_path / "runs",
    ]
    result = bash("run_training.sh", *options, FEATURE_DIR=str(tmp_path / "feature"))
    assert result.returncode == 0, result.stderr
    assert "generating the synthetic DEMO features" in result.stdout
    assert "DEMO (synthetic) test, 360 utterances" in result.stdout
    summary = json.loads(next((tmp_path / "runs" / "DEMO").glob("*/summary.json")).read_text())
    assert summary["dataset"] == "DEMO (synthetic)"
    assert 0.70 < summary["test"]["mean"]["wa"] < 0.96  # above each single modality, below the bound


@pytest.mark.slow
def test_real_features_train_and_evaluate(tmp_path, iemocap_small, run):
    options = ["--epochs", "20", "--hidden_dim", "128", "--lr", "0.0005", "--seeds", "42", "123"]
    runs = ["--save_path", tmp_path]
    code, output, error = run(train.main, "--dataset", "IEMOCAP", *options, *runs, "--feature_dir", iemocap_small)
    assert code == 0, error
    assert "paper, as printed 82.17 81.85 81.85 –" in " ".join(output.split())
    assert "most likely swapped" in output
    code, evaluated, error = run(evaluation.main, "IEMOCAP", *runs)
    assert code == 0, error
    assert table(evaluated)[:3] == table(output)
    summary = json.loads(next((tmp_path / "IEMOCAP").glob("*/summary.json")).read_text())
    assert summary["test"]["mean"]["wa"] > 0.5  # chance is 0.32, text alone about 0.46


@pytest.mark.parametrize("script", ["train", "eval", "sweep", "reproduce", "extract_features", "finetune", "predict"])
def test_help_is_complete_and_without_warnings(script):
    result = subprocess.run([sys.executable, ROOT / f"{script}.py", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stderr == ""
    assert "--device" in result.stdout


def test_default_folders_follow_the_repository_not_the_caller(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATURE_DIR", raising=False)
    assert Path(default_feature_dir()).resolve() == ROOT / "feature"


@pytest.mark.parametrize("content", ["[]", "{}", '{"seed": 1, "selected_epoch": "2"}'])
def test_damaged_metrics_are_one_line_in_evaluation(trained, call, content):
    run = next((trained[0] / "TOY").iterdir())
    (run / "seed1" / "metrics.json").write_text(content)
    code, line = call(evaluation.main, run)
    assert code == 2
    assert re.search(r"^error: .*seed1/metrics\.json: (not the metrics of a run|expected a JSON object)", line)


def test_one_file_as_all_splits_trains_nothing(tmp_path, feature_dir, call):
    path = feature_dir / "TOY_BERT_WAV2VEC_train.pkl"
    options = ["--train_path", path, "--valid_path", path, "--test_path", path, *TINY]
    code, line = call(train.main, *options, "--save_path", tmp_path / "runs")
    assert (code, line) == (2, f"error: {path}: the val split has the same utterances as train ({path})")
    assert not (tmp_path / "runs").exists()


@pytest.mark.drawn
def test_a_folder_that_is_not_in_utf8(tmp_path, feature_dir, run):
    """Its name is shown as far as possible, even if the output has no plus-minus sign."""
    runs = os.fsencode(tmp_path) + b"/ru\xffns"
    options = ["--dataset", "TOY", *TINY, "--feature_dir", feature_dir, "--save_path", runs]
    ascii_output = environment(PYTHONIOENCODING="ascii")
    done = subprocess.run([sys.executable, "train.py", *options], cwd=ROOT, env=ascii_output, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"ru\\udcffns" in done.stdout
    assert b"\\xb1" in done.stdout
    code, output, error = run(evaluation.main, "TOY", "--save_path", os.fsdecode(runs))
    assert code == 0, error
    assert "ru\\udcffns" in output
