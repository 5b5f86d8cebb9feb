"""benchmarks/graph.py: validation selects one graph of each profile, and the gains are differences of test WA."""

import re

from benchmarks import graph
from tests.folds.test_protocol import write
from utils.config import make_config
from utils.io import read_json


def test_one_graph_of_each_profile_is_selected_on_validation(run, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "make_config", lambda given: make_config({**given, "epochs": 1, "hidden_dim": 16}))
    monkeypatch.setattr(graph, "default_save_path", lambda: str(tmp_path))
    write(tmp_path / "feature", "all", range(96))
    options = ["TOY", "--seeds", 1, "--feature_dir", tmp_path / "feature", "--device", "cpu"]
    code, printed, error = run(graph.main, *options)
    assert code == 0, error
    found = read_json(tmp_path / "reproduction/TOY/graph.json")["rows"]
    assert list(found) == ["session", "random"]
    for rows in found.values():
        assert len(rows) == 14
        for of_profile in (rows[:7], rows[7:]):
            without, *graphs = of_profile
            assert (without["cells"][2], without["gain"], without["selected"]) == ("w/o CH-GAT", None, False)
            val = [float(row["cells"][4]) for row in graphs]
            assert [row["selected"] for row in graphs] == [index == val.index(max(val)) for index in range(6)]
            for row in graphs:
                wa, base = (float(each["cells"][5].split()[0]) for each in (row, without))
                assert abs(row["gain"]["value"] - (wa - base)) < 0.011
    assert len(re.findall(r"^\| \*\*(?:paper|refined)\*\*", printed, re.M)) == 4
