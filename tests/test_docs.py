"""The documentation against the code: profiles, options, paths."""

import re
import sys
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.config import OPTIONS, PROFILES

PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / name / "README.md" for name in ("checkpoints", "feature")),
]
DOCS = [str(path.relative_to(ROOT)) for path in sorted(PAGES) if path.name != "CHANGELOG.md"]
TEXT = "\n".join(re.sub(r"<!--.*?-->", "", (ROOT / name).read_text(), flags=re.S) for name in DOCS)
FOLDERS = ("", ".ci", "benchmarks", "checkpoints", "docs", "feature", "models", "tests", "utils")
SUFFIXES = ("py", "md", "sh", "toml", "txt")
SCRIPTS = ("train", "eval", "compare", "folds", "sweep", "reproduce", "predict", "extract_features", "finetune", "app")
BENCHMARKS = sorted(set(re.findall(r"-m (benchmarks\.\w+)", TEXT)))
OTHERS = {"head", "port", "address", "local-dir"}  # options of ray and hf


def files() -> set[Path]:
    """The text files of the repository; those in the root and in checkpoints/ and feature/ without subfolders."""
    flat = {ROOT / folder for folder in ("", "checkpoints", "feature")}
    found = [
        path
        for folder in (ROOT / name for name in FOLDERS)
        for path in (folder.glob("*") if folder in flat else folder.rglob("*"))
    ]
    return {path for path in found if path.suffix[1:] in SUFFIXES or path.name == "run"}


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the table with this first column; the header is the first row."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    rows = [[cell.strip(" `") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [rows[0], *rows[2:]]


def value(profile: str, option: str) -> str:
    return str(PROFILES[profile].get(option, OPTIONS[option].default))


@lru_cache
def parser_options() -> frozenset[str]:
    """Every option in the ``--help`` of the scripts and of the benchmarks that the documentation names."""
    found = set()
    for name in (*SCRIPTS, *BENCHMARKS):
        printed = []
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(sys, "argv", [f"{name}.py", "--help"])
            patch.setattr(
                "argparse.ArgumentParser._print_message", lambda self, text, file=None, to=printed: to.append(text)
            )
            import_module(name).main()
        found.update(re.findall(r"--([a-z]\w*)", printed[0]))
    return frozenset(found)


def test_paper_vs_code_md_has_the_values_of_each_profile_for_every_option_in_which_they_differ():
    header, *rows = table((ROOT / "docs/paper_vs_code.md").read_text(), "point")
    assert header[-4:] == ["option", *PROFILES]
    named = []
    for *_, options, official, paper, refined in rows:
        names = options.replace("--", "").split()
        named += names
        expected = [" ".join(value(profile, name) for name in names) for profile in PROFILES]
        assert [official, paper, refined] == expected, options
    assert len(named) == len(set(named))
    assert {name for values in PROFILES.values() for name in values} <= set(named)


def test_every_option_exists():
    named = set(re.findall(r"(?<![-\w])--([a-z][\w-]*)", TEXT))
    assert len(named) > 40
    assert named - OTHERS - parser_options() == set()


def test_every_path_exists():
    suffixes = "|".join(SUFFIXES)
    paths = set(re.findall(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS[2:])})/[\w./-]*(?:\.(?:{suffixes})\b|/))", TEXT))
    outputs = {path for path in paths if path.startswith(("checkpoints/", "feature/"))} - set(DOCS)
    assert [path for path in paths - outputs if not (ROOT / path).exists()] == []
    scripts = set(re.findall(r"(?<![\w/.<>-])(\w+\.(?:py|sh))\b", TEXT))
    assert len(scripts) > 10
    assert scripts - {path.name for path in files()} == set()


def test_nothing_refers_to_the_design_document():
    name = "DESIGN" + ".md"
    assert [path for path in files() if name in path.read_text(errors="replace")] == []
