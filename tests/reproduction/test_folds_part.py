"""The folds and the probes of the reproduction."""

import pytest

import reproduce
from tests.conftest import make_rows, write_pickle
from tests.folds.test_protocol import write
from utils.config import SPLITS
from utils.training.probes import PROBES


def options(tmp_path, *more: object) -> list[object]:
    small = ["TOY", "--epochs", 1, "--hidden_dim", 16, "--device", "cpu", "--seeds", 1, "--profiles", "paper"]
    return [*small, "--feature_dir", tmp_path / "feature", "--save_path", tmp_path / "out", *more]


@pytest.mark.drawn
def test_every_row_is_cross_validated_and_reported(run, tmp_path):
    write(tmp_path / "feature", "all", range(96))
    code, output, error = run(reproduce.main, *options(tmp_path, "--parts", "folds"))
    assert code == 0, error
    assert "TOY: folds by session" in output
    text = (tmp_path / "out" / "report.md").read_text()
    section = text.split("### TOY: cross-validation")[1]
    for title in ("paper", "paper, w/o CH-GAT", "paper, text alone", "logistic regression, text + audio", "MLP, text"):
        assert section.count(f"| {title}") >= 2  # by session and at random
    assert "Δ WA vs logistic regression, text + audio" in section
    assert "missing" not in section.split("### TOY, ")[0]
    assert (tmp_path / "out" / "figures" / "TOY-folds.png").is_file()
    for path in (tmp_path / "feature").iterdir():
        path.unlink()
    code, _, error = run(reproduce.main, *options(tmp_path, "--report_only"))
    assert code == 0, error  # a report needs no features


def test_the_number_of_folds_can_be_given(run, tmp_path):
    write(tmp_path / "feature", "all", range(96), speakers=8)
    parts = ("--parts", "folds", "--folds", 3)
    code, _, error = run(reproduce.main, *options(tmp_path, *parts))
    assert code == 0, error
    for by in ("session", "random"):
        found = (tmp_path / "out" / "TOY" / f"folds-{by}-folds=3").glob("*/fold*")
        assert {path.name for path in found} == {"fold1", "fold2", "fold3"}
    assert "| paper |" in (tmp_path / "out" / "report.md").read_text().split("### TOY: cross-validation")[1]
    code, _, error = run(reproduce.main, *options(tmp_path, "--parts", "folds", "--folds", 2))
    assert (code, error) == (
        2,
        "error: --by session: 2 folds of 4 sessions; at least 3 folds, each with a session, are required\n",
    )


def test_without_speakers_there_are_no_folds(run, tmp_path):
    for split in SPLITS:
        write_pickle(tmp_path / "feature" / f"TOY_BERT_WAV2VEC_{split}.pkl", make_rows(24))
    code, output, error = run(reproduce.main, *options(tmp_path, "--parts", "folds"))
    assert code == 0, error
    assert "TOY: no folds, since its features are missing or do not name sessions or speakers" in output


def test_the_tables_have_probes(run, tmp_path):
    for seed, split in enumerate(SPLITS):
        write_pickle(tmp_path / "feature" / f"TOY_BERT_WAV2VEC_{split}.pkl", make_rows(24, seed=seed))
    assert run(reproduce.main, *options(tmp_path, "--parts", "tables"))[0] == 0
    section = (tmp_path / "out" / "report.md").read_text().split("### TOY: probes on the same embeddings")[1]
    assert "Δ WA vs CemoBAM, `paper`" in section
    for probe in PROBES:
        assert f"| {probe.title} |" in section
    assert "95 % jackknife intervals over utterances" in section
