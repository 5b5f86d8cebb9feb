"""compare.py on synthetic predictions."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import compare
from utils.data.identity import ATTRIBUTES
from utils.statistics import cluster_counts, clustered
from utils.training.metrics import metric_over_seeds, metrics_of
from utils.training.predictions import write_predictions

CLASSES = ("anger", "joy", "neutral")
N, SPEAKERS = 96, 8
LABEL = np.random.default_rng(0).integers(0, 3, N)
SPEAKER = np.sort(np.random.default_rng(1).integers(0, SPEAKERS, N))


def predicted(seed: int, share: float, label: np.ndarray = LABEL) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(N) < share, label, rng.integers(0, 3, N))


def write(path: Path, header: str, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def write_csv(path: Path, prediction: np.ndarray, name=lambda i: f"wav/u{i}.wav") -> Path:
    rows = [(name(i), LABEL[i], prediction[i], f"s{SPEAKER[i]}") for i in range(N)]
    return write(path, "id,label,prediction,speaker", rows)


def write_run(folder: Path, predictions: dict[int, np.ndarray], finished: bool = True, label=LABEL) -> Path:
    known = {"audio_file": tuple(f"wav/u{i}.wav" for i in range(N)), "speaker": tuple(f"s{s}" for s in SPEAKER)}
    identity = dict.fromkeys(ATTRIBUTES, ("",) * N) | known
    for seed, prediction in predictions.items():
        of_seed = folder / f"seed{seed}"
        write_predictions(of_seed / "test_predictions.csv", identity, CLASSES, label, np.eye(3)[prediction])
        if finished:
            (of_seed / "metrics.json").write_text("{}")
    return folder


@pytest.fixture
def command(run, tmp_path):
    """The JSON and the text of a comparison."""

    def command(a: Path, b: Path, *options: object) -> tuple[dict, str]:
        code, output, error = run(compare.main, a, b, "--json", tmp_path / "found.json", *options)
        assert (code, error) == (0, "")
        return json.loads((tmp_path / "found.json").read_text()), output

    return command


@pytest.fixture
def refused(run):
    """The one-line error of a comparison that is refused."""

    def refused(a: Path, b: Path, *options: object) -> str:
        code, output, error = run(compare.main, a, b, *options)
        assert (code, output, len(error.splitlines())) == (2, "", 1)
        return error

    return refused


def test_runs_are_compared_by_the_mean_over_their_seeds_and_by_speaker(command, tmp_path):
    of_a, of_b = ({seed: predicted(10 * i + seed, share) for seed in (1, 2, 3)} for i, share in ((1, 0.4), (2, 0.9)))
    del of_b[3]
    write_run(tmp_path / "b", {7: predicted(7, 0.1)}, finished=False)
    found, text = command(write_run(tmp_path / "a", of_a), write_run(tmp_path / "b", of_b))
    assert (found["a"]["seeds"], found["b"]["seeds"]) == (["1", "2", "3"], ["1", "2"])
    counts = [cluster_counts(LABEL, np.stack([*each.values()]), SPEAKER, 3) for each in (of_a, of_b)]
    for name in ("wa", "ua"):
        values = [100 * metric_over_seeds(name)(each.sum(0)) for each in counts]
        metric = found["metrics"][name]
        assert [metric["a"]["value"], metric["b"]["value"]] == pytest.approx(values)
        assert metric["difference"]["value"] == pytest.approx(values[1] - values[0])
        for side, each in zip(("a", "b"), counts, strict=True):
            low, high = (metric[side][bound] for bound in ("low", "high"))
            expected = clustered(each, metric_over_seeds(name))
            assert (low, high) == pytest.approx((expected.low, expected.high))
        assert metric["test"]["p"] == metric["test"]["smallest"] == 2 / 2**SPEAKERS  # B is better for every speaker
        assert metric["difference"]["low"] > 0
    assert (found["clusters"]["kind"], found["clusters"]["number"]) == ("speaker", SPEAKERS)
    assert found["clusters"]["wa"][3]["utterances"] == (SPEAKER == 3).sum()
    assert found["clusters"]["wa"][3]["wa_b"] == pytest.approx(
        100 * np.mean([each[SPEAKER == 3] == LABEL[SPEAKER == 3] for each in of_b.values()])
    )
    assert re.fullmatch(
        r"B is better in WA by \d\d\.\d\d points and in UA by \d\d\.\d\d points, more than random variation between "
        r"speakers explains\.",
        found["conclusion"],
    )
    for part in (
        "mean of seeds 1, 2, 3",
        "B - A  above 0, B is better",
        "over speakers, for these seeds",
        "all 256 swaps",
    ):
        assert part in text
    assert "warning: only 8 speakers: intervals are wide (t with 7 degrees of freedom)" in text
    assert text.endswith(found["conclusion"] + "\n")


def test_the_other_way_round_every_sign_is_the_other(command, tmp_path):
    a, b = (write_csv(tmp_path / f"{name}.csv", predicted(i, 0.5)) for i, name in enumerate("ab"))
    one, other = (command(*pair)[0]["metrics"] for pair in ((a, b), (b, a)))
    for name in ("wa", "ua"):
        there, back = one[name]["difference"], other[name]["difference"]
        assert (there["value"], there["low"]) == pytest.approx((-back["value"], -back["high"]))
        assert one[name]["test"] == other[name]["test"]
        assert one[name]["detectable"] == pytest.approx(other[name]["detectable"])


def test_nothing_is_shown_of_a_run_and_itself(command, tmp_path):
    found, text = command(*2 * [write_csv(tmp_path / "a.csv", predicted(1, 0.5))])
    assert found["metrics"]["ua"]["difference"]["value"] == 0
    assert (found["metrics"]["ua"]["test"]["p"], found["metrics"]["ua"]["detectable"]) == (1, None)
    assert text.endswith("No difference between A and B is shown.\n")


def test_every_form_of_the_same_predictions_is_the_same(command, tmp_path):
    a, prediction = write_csv(tmp_path / "a.csv", predicted(1, 0.5)), predicted(2, 0.8)
    expected = command(a, write_csv(tmp_path / "b.csv", prediction))[0]["metrics"]
    run = write_run(tmp_path / "run", {5: prediction})
    header, *rows = csv.reader((run / "seed5" / "test_predictions.csv").read_text().splitlines())
    folds = write(
        tmp_path / "folds/predictions.csv", ",".join(["seed", "fold", *header]), [[5, 1, *row] for row in rows]
    )
    named = [(f"u{i}", CLASSES[LABEL[i]], CLASSES[prediction[i]]) for i in reversed(range(N))]
    only_names = write(tmp_path / "names.csv", "id,label,prediction", named)
    whole = write_run(tmp_path / "whole", {1: predicted(1, 0.5)})
    for first, second, matched in (
        (a, run, "id"),
        (a, run / "seed5", "id"),
        (a, run / "seed5" / "test_predictions.csv", "id"),
        (a, folds.parent, "id"),
        (whole, only_names, "file name without folder and suffix"),  # with A's classes and speakers
    ):
        found, text = command(first, second)
        assert found["metrics"] == expected
        assert found["matched_by"] == matched and f"matched by {matched}" in text
    back, _ = command(only_names, whole)  # with B's
    assert (back["clusters"]["kind"], back["class_names"]) == ("speaker", list(CLASSES))
    assert back["metrics"]["wa"]["difference"]["std_error"] == pytest.approx(expected["wa"]["difference"]["std_error"])


def test_a_class_of_one_speaker_alone_leaves_no_rest_without_that_speaker(command, tmp_path):
    label, means = np.where(SPEAKER == 0, 2, LABEL % 2), []
    of_a, of_b = ({seed: predicted(10 * i + seed, 0.5, label) for seed in (1, 2, 3)} for i in (1, 2))
    found, _ = command(write_run(tmp_path / "a", of_a, label=label), write_run(tmp_path / "b", of_b, label=label))
    for speaker in range(SPEAKERS):
        kept = speaker != SPEAKER
        a, b = (
            np.mean(
                [metrics_of(cluster_counts(label[kept], p[None, kept], SPEAKER[kept] * 0, 3)[0, 0])["ua"] for p in of]
            )
            for of in (of_a.values(), of_b.values())
        )
        means.append(100 * (b - a))
    spread = np.sqrt((SPEAKERS - 1) / SPEAKERS * ((means - np.mean(means)) ** 2).sum())
    assert found["metrics"]["ua"]["difference"]["std_error"] == pytest.approx(spread)


def test_clusters_can_be_chosen(command, refused, tmp_path):
    rows = [(f"Ses0{1 + i % 5}F_impro0{i % 3}_{'FM'[i % 2]}00{i % 10}{i}", LABEL[i], i % 3) for i in range(N)]
    a = write(tmp_path / "a.csv", "id,label,prediction", rows)
    b = write(tmp_path / "b.csv", "id,label,prediction", [(*row[:2], row[1]) for row in rows])
    for by, number in ((None, 10), ("session", 5), ("dialogue", 15), ("utterance", N)):
        found, text = command(a, b, *(["--by", by] if by else []))
        assert (found["clusters"]["kind"], found["clusters"]["number"]) == (by or "speaker", number)
        assert ("no difference can be shown at the 5 % level" in text) == (by == "session")
        assert ("utterances of one speaker are treated as independent" in text) == (by == "utterance")
    assert "No difference between A and B is shown; a true difference of" in command(a, b, "--by", "session")[1]
    a, b = (write(tmp_path / f"{name}.csv", "id,label,prediction", [("u1", 0, 0), ("u2", 1, 0)]) for name in "ab")
    assert "--by speaker: 'u1' has no speaker" in refused(a, b, "--by", "speaker")
    assert command(a, b)[1].endswith("No conclusion: 2 utterances are too few for an interval.\n")


def test_what_only_one_has_is_refused_or_left_out_and_counted(command, refused, tmp_path):
    rows = [(f"u{i}", LABEL[i], i % 3, SPEAKER[i]) for i in range(N)]
    a = write(tmp_path / "a.csv", "id,label,prediction,speaker", rows[:-1])
    b = write(tmp_path / "b.csv", "id,label,prediction,speaker", rows[5:])
    message = refused(a, b)
    assert f"only {a} has 'u0', 'u1', 'u2' and 2 others; only {b} has 'u{N - 1}'" in message
    assert f"use --common to compare the {N - 6} utterances that both have" in message
    found, text = command(a, b, "--common")
    assert (found["utterances"], found["left_out"]) == (N - 6, {"a": 5, "b": 1})
    assert "left out: 5 utterances that only A has, 1 that only B has" in text


HEADER = "id,label,prediction"
GOOD = [("x/u1.wav", "anger", "joy"), ("x/u2.wav", "joy", "joy"), ("x/u3.wav", "anger", "anger")]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (HEADER, [*GOOD, GOOD[0]], "line 5: 'x/u1.wav' is also in B.csv: line 2"),
        ("seed,id,label,prediction", [(s, *row) for s in (1, 2, 1) for row in GOOD], "line 8: 'x/u1.wav' is also in"),
        (
            "seed,id,label,prediction",
            [*((1, *row) for row in GOOD), (2, *GOOD[0])],
            "seed 2 has no 'x/u2.wav', 'x/u3.w",
        ),
        ("seed,id,label,prediction", [*((1, *row) for row in GOOD), ("", *GOOD[0])], "line 5: no seed"),
        (
            "seed,id,label,prediction",
            [*((1, *row) for row in GOOD), (2, "x/u1.wav", "joy", "joy")],
            "seed 2 has no 'x/u2.wav'",
        ),
        (
            "seed,id,label,prediction",
            [*((1, *row) for row in GOOD), *((2, row[0], "joy", "joy") for row in GOOD)],
            "line 5: label 'joy', but 'anger' in B.csv: line 2",
        ),
        (
            HEADER,
            [("y/v1.wav", "anger", "joy")],
            "shares no utterance with A.csv (first ids 'y/v1.wav' and 'x/u1.wav')",
        ),
        (HEADER, [("y/u1.wav", "joy", "joy"), ("z/u1.wav", "joy", "joy")], "shares no utterance"),  # equal stems
        (
            HEADER,
            [GOOD[0], ("x/u2.wav", "anger", "joy"), GOOD[2]],
            "line 3: label 'anger', but 'joy' in A.csv: line 3",
        ),
        (HEADER, [*GOOD[:2], ("x/u3.wav", "anger", "")], "line 4: no prediction"),
        (HEADER, [*GOOD[:2], ("", "anger", "joy")], "line 4: no id"),
        (HEADER, [*GOOD[:2], ("x/u3.wav", "anger")], "line 4: 2 values for 3 columns"),
        (
            "id,label,guess",
            GOOD,
            "needs audio_file or id, label and prediction, one column each (it has id, label, guess)",
        ),
        ("id,label,label,prediction", [], "needs audio_file or id"),
        (HEADER, [], "(it has no rows)"),
        (
            "id,label,prediction,p_anger,p_fear",
            [(*row, 1, 0) for row in GOOD],
            "label 'joy' is not one of the classes anger",
        ),
    ],
)
def test_bad_files_are_refused_in_one_line(refused, tmp_path, monkeypatch, header, rows, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(write(Path("A.csv"), HEADER, GOOD), write(Path("B.csv"), header, rows))


def test_other_classes_are_refused(refused, tmp_path):
    a = write_run(tmp_path / "a", {1: predicted(1, 0.5), 2: predicted(2, 0.5)})
    b = write_run(tmp_path / "b", {1: predicted(1, 0.5)})
    path = b / "seed1" / "test_predictions.csv"
    path.write_text(path.read_text().replace("p_joy", "p_fear"))
    assert f"{b}: classes anger, fear, neutral, but {a} has anger, joy, neutral" in refused(a, b)
    other = write_csv(tmp_path / "other.csv", np.where(predicted(1, 0.5) == 0, 3, 1))
    assert re.search(
        r"other.csv: line \d+: prediction '3' is not one of the classes anger, joy, neutral", refused(a, other)
    )
    path = a / "seed2" / "test_predictions.csv"
    path.write_text(path.read_text().replace("p_joy", "p_fear"))
    assert "seed2/test_predictions.csv: classes anger, fear, neutral, but another seed has anger, joy" in refused(a, b)


def test_a_folder_without_predictions_is_refused(refused, tmp_path):
    a = write_csv(tmp_path / "a.csv", predicted(1, 0.5))
    unfinished = write_run(tmp_path / "run", {1: predicted(1, 0.5)}, finished=False)
    for path in (tmp_path, unfinished):
        assert f"{path}: contains no test_predictions.csv, no predictions.csv and no finished seed" in refused(a, path)
    assert "no such file" in refused(a, tmp_path / "nowhere")
    finished = write_run(tmp_path / "run", {1: predicted(1, 0.5)})
    assert "seed1/val_predictions.csv: no such file" in refused(a, finished, "--split", "val")
