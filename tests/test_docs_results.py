"""The results in the documentation: they are generated from the files in docs/results/, and up to date."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from benchmarks import record
from tests.conftest import ROOT
from tests.test_docs import DOCS

FIELDS = {"command", "data", "note", "commit", "date", "machine", "versions", "seconds", "output", "files"}
FILES = sorted((ROOT / "docs/results").glob("*.json"))
GENERATED = re.compile(r"<!--\[.*?\]-->(.*?)<!--end-->", re.S)
RESULT = re.compile(r"\d ± \d|\[[-+−]?\d+\.\d+, [-+−]?\d+\.\d+\]|\b\d\d\.\d+ (?:%|WA|UA|points)")


def generate(root, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "docs.generate", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_the_pages_are_up_to_date():
    done = generate(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_that_is_out_of_date_is_found_and_mended(tmp_path):
    for name in ("README.md", "docs", "utils", "models"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    path = tmp_path / "docs/results/jobs.json"
    path.write_text(path.read_text().replace("two jobs", "ten jobs"))
    done = generate(tmp_path, "--check")
    assert done.returncode != 0
    assert "speed.md" in done.stdout
    assert "docs.generate" in done.stdout + done.stderr
    assert generate(tmp_path).returncode == 0
    assert "ten jobs" in (tmp_path / "docs/speed.md").read_text()
    assert generate(tmp_path, "--check").returncode == 0
    assert generate(tmp_path, "--chek").returncode == 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_result_file_says_where_it_comes_from_and_is_used(path):
    found = json.loads(path.read_text())
    assert found.keys() == FIELDS
    assert all(found[name] for name in ("command", "data", "commit", "date", "machine", "versions", "output"))
    assert path.stat().st_size < 200_000
    assert any(f'"{path.stem}"' in (ROOT / page).read_text() for page in DOCS)


@pytest.mark.parametrize("page", DOCS)
def test_no_result_is_written_by_hand(page):
    text = GENERATED.sub("", (ROOT / page).read_text())
    assert RESULT.findall(text) == []


def test_a_command_is_recorded_with_its_origin_and_its_files(run, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.json").write_text('{"wa": 1}')
    (tmp_path / "run" / "b.md").write_text("one\ntwo\n")
    options = ["x", "--data", "nothing", "--folder", tmp_path / "run", "--files", "*.json", "*.md", "--"]
    code, printed, _ = run(record.main, *options, sys.executable, "-c", f"print('{ROOT}/checkpoints')")
    assert (code, printed) == (0, f"{ROOT}/checkpoints\n")
    found = json.loads((tmp_path / "results" / "x.json").read_text())
    assert found.keys() == FIELDS
    assert found["output"] == ["checkpoints"]
    assert found["files"] == {"a.json": {"wa": 1}, "b.md": ["one", "two"]}
    assert "cores of" in found["machine"]
    assert found["command"].startswith(f"{sys.executable} -c ")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--", sys.executable, "-c", "raise SystemExit(3)"], "exit code 3, nothing is recorded"),
        (["--files", "*.csv", "--", sys.executable, "-c", ""], "no file matches *.csv, nothing is recorded"),
    ],
)
def test_nothing_is_recorded_of_a_command_that_failed(run, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    code, _, error = run(record.main, "x", "--data", "nothing", "--folder", tmp_path, *options)
    assert code == 2
    assert error.endswith(f"{message}\n")
    assert not (tmp_path / "results").exists()
