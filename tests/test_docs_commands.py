"""Commands and links of the documentation: the scripts' own parsers accept every command; every link has a target."""

import argparse
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_docs import DOCS

SCRIPTS = {
    "run_training.sh": "train",
    "run_eval.sh": "eval",
    "run_folds.sh": "folds",
    "selected_topK.sh": "sweep",
    "reproduce.sh": "reproduce",
}
DATASET_FIRST = {"run_training.sh", "run_folds.sh", "selected_topK.sh"}  # these pass it on as --dataset
COMMAND = re.compile(
    r"(?:bash (\w+\.sh)|(?:\.venv/bin/)?python (?:-m (benchmarks\.\w+|docs\.\w+)|(\w+)\.py))(?= |$)(.*)"
)


class Parsed(Exception):
    """The parser has accepted the command."""


def commands() -> dict[str, str]:
    """Every command in a code block or in backticks, with the page that shows it."""
    found = {}
    for page in DOCS:
        text = re.sub(r"\\\n\s*", "", (ROOT / page).read_text())
        lines = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)).splitlines()
        lines += re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
        for piece in (piece for line in lines for piece in re.split(r" && | & |; ", " ".join(line.split()))):
            if COMMAND.search(piece) and "--help" not in piece:
                found[piece] = page
    return found


def split_command(command: str) -> tuple[str, list[str]]:
    """The module that a command runs, and its arguments."""
    script, module, name, rest = COMMAND.search(command).groups()
    arguments = shlex.split(re.sub(r"\s(\.\.\.|…)(?=\s|$)", "", rest), comments=True)
    if script in DATASET_FIRST and arguments and not arguments[0].startswith("-"):
        arguments = ["--dataset", *arguments]
    return module or name or SCRIPTS.get(script, ""), arguments


COMMANDS = commands()


def parse(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a script parse its arguments and stop it there."""
    known = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(self, args=None, namespace=None):
        _, unknown = known(self, args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [f"{module}.py", *arguments])
    with pytest.raises(Parsed):
        import_module(module).main()


def test_there_are_commands():
    assert len(COMMANDS) > 60
    assert {split_command(command)[0] for command in COMMANDS} >= {*SCRIPTS.values(), "predict", "extract_features"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_script_accepts_the_command(command, monkeypatch):
    module, arguments = split_command(command)
    if not module or module == "docs.generate":
        assert re.match(r"(\w+=\S+ )*bash (run_tests|predict)\.sh|.*docs\.generate( --check)?$", command), COMMANDS[
            command
        ]
        return
    parse(module, arguments, monkeypatch)


@pytest.mark.parametrize(
    "command", ["bash run_training.sh DEMO --no_such", "python predict.py --checkpoint RUN --split all"]
)
def test_a_wrong_command_is_found(command, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        parse(*split_command(command), monkeypatch)
    assert "unrecognized arguments" in capsys.readouterr().err


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", DOCS)
def test_every_link_has_a_target(page):
    path = ROOT / page
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", path.read_text()):
        name, _, anchor = (target[0] or target[1]).partition("#")
        if "://" in name:
            continue
        linked = path.parent / name if name else path
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []
