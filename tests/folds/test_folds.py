"""Cross-validation end to end."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, recall_score
from sklearn.metrics.pairwise import cosine_similarity

import compare
import folds
from tests.folds.test_protocol import write
from utils.folds import run as folds_run
from utils.folds.protocol import read_pool
from utils.training import jobs

OPTIONS = ["--dataset", "TOY", "--hidden_dim", 16, "--epochs", 4, "--lr", 1e-2, "--k_text", 3, "--k_audio", 2]
ROWS = 3 + 4  # CemoBAM on both modalities and on each one, three logistic regressions, the MLP


@pytest.fixture
def command(run, tmp_path):
    write(tmp_path, "train", range(64))
    write(tmp_path, "all", range(64, 96))
    shared = ["--feature_dir", tmp_path, "--save_path", tmp_path / "runs", "--device", "cpu", "--seeds", 1, 2, 3]
    return lambda *options: run(folds.main, *OPTIONS, *shared, *options)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "TOY" / "folds-session"


@pytest.mark.drawn
def test_everything_is_tested_once_pooled_and_reported(command, run, folder, tmp_path):
    code, output, error = command()
    assert code == 0, error
    assert "96 utterances, 3 folds, by session (validation: the next fold)" in output
    rows = sorted(path.parent.name for path in folder.glob("*/results.json"))
    assert len(rows) == ROWS == len(list((folder.parent / "folds-random-folds=3").glob("*/results.json")))
    main = next(path for path in folder.iterdir() if (path / "report.md").exists())
    table = pd.read_csv(main / "predictions.csv")
    assert table.groupby("seed").size().tolist() == [96] * 3
    assert set(table["audio_file"]) == {f"u{row}.wav" for row in range(96)}
    found = json.loads((main / "results.json").read_text())
    for name, score in (
        ("wa", accuracy_score),
        ("ua", lambda label, prediction: recall_score(label, prediction, average="macro")),
    ):
        over_seeds = [score(each["label"], each["prediction"]) for _, each in table.groupby("seed")]
        assert found["pooled"][name]["value"] == pytest.approx(100 * np.mean(over_seeds))
        by_fold = [
            np.mean([score(each["label"], each["prediction"]) for _, each in of_fold.groupby("seed")])
            for _, of_fold in table.groupby("fold")
        ]
        expected = {"mean": 100 * np.mean(by_fold), "std": 100 * np.std(by_fold, ddof=1)}
        assert found["over_folds"][name] == pytest.approx(expected)
    assert found["clusters"] == "speaker"
    assert np.sum(found["confusion"]) == 3 * 96
    report = (main / "report.md").read_text()
    assert "optimism in WA" in report
    for name in ("folds", "confusion_matrix"):
        assert f"({name}.png)" in report
        assert (main / f"{name}.png").is_file()
        assert (main / f"{name}.pdf").is_file()
    assert "worst speaker" in report
    speaker, label = ([row // 4 % 6 for row in range(96)], [row % 4 for row in range(96)])
    features = read_pool("TOY", tmp_path).features
    nearest = cosine_similarity(features.audio) - 2 * np.eye(96)
    top = np.argsort(-nearest, axis=1)[:, :2]
    shares = [round(100 * np.mean(np.array(of)[top] == np.array(of)[:, None])) for of in (speaker, label)]
    same = f"{shares[0]} % have the same speaker (by chance: 17 %), {shares[1]} % have"
    assert f"Of the 2 nearest neighbours by audio, {same}" in report
    probability = table.filter(regex="^p_").to_numpy()
    assert np.allclose(probability.sum(1), 1, atol=1e-5)
    assert (probability.argmax(1) == table["prediction"]).all()

    of_probe = json.loads((folder / "probe-linear-text" / "results.json").read_text())
    assert [len(each["seeds"]) for each in (found, of_probe)] == [3, 1]
    line = next(line for line in report.splitlines() if line.startswith("| logistic regression, text |"))
    assert f"| {of_probe['pooled']['wa']['value'] - found['pooled']['wa']['value']:+.2f} [" in line

    code, output, error = run(compare.main, folder / "probe-linear-text", main)
    assert code == 0, error
    assert "96 utterances, matched by id; clusters: 6 speakers" in output


def test_the_optimism_is_the_paired_difference(command, folder):
    assert command("--no_probes", "--seeds", 1)[0] == 0
    main = next(path for path in folder.iterdir() if (path / "report.md").exists())
    honest, random = (
        pd.read_csv(folder.parent / name / main.name / "predictions.csv")
        for name in ("folds-session", "folds-random-folds=3")
    )
    assert honest["audio_file"].tolist() == random["audio_file"].tolist()
    of_random, of_honest = (100 * (each["label"] == each["prediction"]).mean() for each in (random, honest))
    lines = (main / "report.md").read_text().split("optimism in WA")[1].splitlines()
    line = next(line for line in lines if "CemoBAM" in line)
    assert line.split(" | ")[3].startswith(f"{of_random - of_honest:+.2f} [")


def test_what_is_finished_is_not_trained_again_and_what_failed_is_missing(command, folder, monkeypatch):
    trained, real = [], jobs.train_run

    def stop(run, *args):
        if len(trained) == 5:
            raise KeyboardInterrupt
        trained.append(run.folder)
        real(run, *args)

    monkeypatch.setattr(jobs, "train_run", stop)
    assert command("--no_probes")[0] == 130
    summary = trained[0].parent / "summary.json"
    summary.write_text("{}")
    os.utime(summary, (0, 0))  # older than a run, as after a kill -9
    monkeypatch.setattr(jobs, "train_run", lambda run, *args: (trained.append(run.folder), real(run, *args)))
    assert command("--no_probes")[0] == 0
    assert json.loads(summary.read_text())["test"]["seeds"].keys() == {"1", "2", "3"}
    assert len(trained) == len(set(trained)) == 2 * 3 * 3  # by session and at random, folds, seeds
    fits = []
    monkeypatch.setattr(folds_run, "fit_probe", lambda *args: fits.append(args))
    _, output, _ = command()
    assert len(fits) == 2 * 3 * (3 + 3)  # three without seeds, the MLP with three
    assert len(trained) == 3 * 2 * 3 * 3
    assert "missing" in output


def test_jobs_find_the_same(command, folder, tmp_path, quick_jobs):
    assert command("--no_probes", "--seeds", 1)[0] == 0
    names = [path.relative_to(tmp_path / "runs") for path in (tmp_path / "runs").rglob("predictions.csv")]
    assert len(names) == 2
    before = {name: (tmp_path / "runs" / name).read_text() for name in names}
    assert command("--no_probes", "--seeds", 1, "--jobs", 2, "--save_path", tmp_path / "again")[0] == 0
    assert {name: (tmp_path / "again" / name).read_text() for name in names} == before


def test_validation_and_folds_have_folders_of_their_own(command, folder):
    options = ("--no_probes", "--seeds", 1, "--epochs", 1)
    assert command(*options, "--val", "random")[0] == 0
    assert command(*options, "--by", "speaker", "--folds", 4)[0] == 0
    assert {path.name for path in folder.parent.iterdir() if path.is_dir()} == {
        "folds-session-val=random",
        "folds-random-val=random-folds=3",
        "folds-speaker-folds=4",
        "folds-random-folds=4",
    }


def test_emobox_folds_are_read(command, folder, tmp_path):
    for fold in (1, 2, 3):
        rows = [row for row in range(96) if row // 8 % 3 == fold - 1]
        lines = [json.dumps({"key": f"toy-u{row}", "wav": f"x/u{row}.wav"}) for row in rows]
        path = tmp_path / "emobox" / "folds" / f"test_fold_{fold}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    code, output, error = command("--no_probes", "--seeds", 1, "--fold_files", tmp_path / "emobox")
    assert code == 0, error
    assert "3 folds, from the fold files (validation: a random fifth" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "speaker", "--folds", 2], "--by speaker: 2 folds of 6 speakers; at least 3 folds"),
        (["--by", "random", "--folds", 0], "--by random: 0 folds; must be from 3"),
        (["--fold_files", ".", "--by", "session"], "--fold_files: the files define the folds"),
        (["--by", "random", "--val", "speaker"], "--val speaker: not with random folds"),
        (["--splits", "val"], "TOY_BERT_WAV2VEC_val.pkl: no such file"),
        (["--k_audio", 40], "--k_audio 40: .* 32 utterances, so each has at most 31 neighbours"),
        (["--download"], "--download: the authors publish features of IEMOCAP and ESD"),
        (["--seeds", 1, 1], "--seeds 1 1: must be distinct"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(command, tmp_path, options, message):
    code, _, error = command(*options)
    assert code == 2
    assert re.search(message, error.splitlines()[-1])
    assert not (tmp_path / "runs").exists()
