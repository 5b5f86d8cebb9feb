"""The results in the documentation: they are generated from the files in docs/results/, and up to date."""

import json
import re
import shutil
import subprocess
import sys

import pytest

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
    path.write_text(path.read_text().replace("77.55", "11.11"))
    done = generate(tmp_path, "--check")
    assert done.returncode != 0
    assert "speed.md" in done.stdout
    assert "docs.generate" in done.stdout + done.stderr
    assert generate(tmp_path).returncode == 0
    assert "11.11" in (tmp_path / "docs/speed.md").read_text()
    assert generate(tmp_path, "--check").returncode == 0


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
