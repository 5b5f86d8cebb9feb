"""The layers of the code: which package may import which."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Each package may import itself and those above it in this list
ROOMS = (
    "models",
    "utils",  # config, errors, io, device, plots
    "utils.data",
    "utils.timeline",
    "utils.training",
    "utils.extraction",
    "utils.transcription",
    "utils.finetuning",
    "utils.prediction",
    "utils.sweep",
    "utils.folds",
    "utils.reproduction",
    "utils.cli",
)


def modules() -> dict[str, Path]:
    files = [path for room in ("models", "utils") for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


MODULES = modules()


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """The project's modules that a file imports; without ``everywhere``, only those at its top level."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & MODULES.keys()


def room(module: str) -> str:
    return "utils.cli" if module == "utils.cli" else module.rpartition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_upward(module):
    allowed = ROOMS[: ROOMS.index(room(module)) + 1]
    assert {other for other in imports(MODULES[module]) if room(other) not in allowed} == set()


def test_no_modules_import_each_other_in_a_circle():
    tuple(TopologicalSorter({name: imports(path) for name, path in MODULES.items()}).static_order())


def test_train_py_needs_at_most_22_modules():
    needed, left = set(), imports(ROOT / "train.py")  # heavy modules are imported inside main
    while left:
        needed |= left
        left = {other for name in left for other in imports(MODULES[name], everywhere=False)} - needed
    assert len(needed) <= 22, sorted(needed)


def test_the_report_of_the_paper_is_at_most_six_modules():
    assert sum(room(name) == "utils.reproduction" for name in MODULES) <= 6
