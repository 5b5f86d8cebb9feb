"""benchmarks/graph.py: validation selects one graph of each profile, and the gains are differences of test WA."""

import re

from benchmarks import graph
from tests.folds.test_protocol import write
from utils.config import make_config


def test_one_graph_of_each_profile_is_selected_on_validation(run, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "make_config", lambda given: make_config({**given, "epochs": 1, "hidden_dim": 16}))
    monkeypatch.setattr(graph, "default_save_path", lambda: str(tmp_path))
    write(tmp_path / "feature", "all", range(96))
    options = ["TOY", "--seeds", 1, "--feature_dir", tmp_path / "feature", "--device", "cpu"]
    code, printed, error = run(graph.main, *options)
    assert code == 0, error
    for part in printed.split("selected on validation: in bold")[1:]:
        lines = [line for line in part.splitlines() if line.startswith(("| paper", "| refined", "| **"))]
        assert len(lines) == 14
        for of_profile in (lines[:7], lines[7:]):
            chosen = ["**" in line for line in of_profile]
            without, *graphs = ([cell.strip(" *") for cell in line.split("|")[1:-1]] for line in of_profile)
            assert (without[2], without[6], chosen[0]) == ("w/o CH-GAT", "", False)
            val = [float(cells[4]) for cells in graphs]
            assert chosen[1:] == [index == val.index(max(val)) for index in range(6)]
            for cells in graphs:
                wa, base, gain = (float(each.split()[0]) for each in (cells[5], without[5], cells[6]))
                assert abs(gain - (wa - base)) < 0.011
    assert re.findall("^(by session|at random)", printed, re.M) == ["by session", "at random"]
    assert len(re.findall(r"^\| \*\*(?:paper|refined)\*\*", printed, re.M)) == 4
