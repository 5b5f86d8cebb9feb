"""The printed tables of results, and the paper's values in them."""

import pytest
import torch

from models.ops import NeighborGraph
from utils.config import make_config
from utils.data.demo import bayes_optimal_wa
from utils.training.graph import GraphData
from utils.training.metrics import PRINTED, printed, recall_table, results_table

METRICS = {
    "seed 1": {"wa": 0.5, "ua": 0.25, "w_f1": 0.125, "macro_f1": 0.1, "recall": [1.0, None]},
    "seed 2": {"wa": 0.7, "ua": 0.25, "w_f1": 0.125, "macro_f1": 0.1, "recall": [0.5, 0.25]},
}


def test_table_has_every_seed_mean_and_the_paper_with_its_note():
    text = results_table(make_config({"dataset": "IEMOCAP"}), "test", METRICS, "title")
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["title"]
    assert lines[1] == ["WA", "UA", "w-F1", "macro-F1"]
    assert lines[2] == ["seed", "1", "50.00", "25.00", "12.50", "10.00"]
    assert lines[4][:6] == ["mean", "±", "std", "60.00", "±", "14.14"]
    assert lines[5] == ["paper,", "as", "printed", "82.17", "81.85", "81.85", "–"]
    assert "most likely swapped" in text


def test_printed_values_are_those_of_the_configuration():
    def values(**options):
        return printed(make_config({"dataset": "ESD", **options}))

    assert values()["wa"] == 95.09
    assert values(fusion_type="cls")["w_f1"] == 94.20
    assert values(ablation="no_xcbam")["wa"] == 60.27
    assert values(ablation="no_cbam") is None
    assert values(ablation="no_chgat", fusion_type="max") is None
    assert printed(make_config({"dataset": "OTHER"})) is None


def test_printed_numbers_of_iemocap_show_the_swap():
    """Every UA is a multiple of 1/2755 (5 seeds x 551 utterances) to the printed precision, and no WA is."""

    def is_accuracy(percent):
        return any(f"{100 * n / 2755:.2f}" == f"{percent:.2f}" for n in range(2756))

    rows = PRINTED["IEMOCAP"].values()
    assert all(is_accuracy(ua) for _, ua, _ in rows)
    assert not any(is_accuracy(wa) for wa, _, _ in rows)


@pytest.mark.parametrize(("split", "there"), [("test", True), ("val", False), ("train", False)])
def test_the_papers_row_is_of_test_alone(split, there):
    text = results_table(make_config({"dataset": "ESD"}), split, METRICS, "title")
    assert ("paper, as printed" in text) == there


def test_demo_is_called_synthetic_and_shows_its_bounds():
    text = results_table(make_config({}), "test", METRICS, "title")
    assert "DEMO is synthetic" in text
    bound = bayes_optimal_wa()
    assert f"Bayes-optimal WA: {100 * bound['scene']:.1f} with the utterance's whole scene" in text
    assert f"{100 * bound['utterance']:.1f} from the utterance alone" in text


def test_missing_class_shows_a_dash():
    lines = recall_table(("a", "b"), METRICS).splitlines()
    assert lines[1].split() == ["seed", "1", "100.00", "–"]


def test_graph_line():
    graph = NeighborGraph.from_edges(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 1]), 2)
    data = GraphData(torch.randn(2, 3), torch.randn(2, 3), torch.tensor([1, 1]), graph)
    assert data.line("val") == (
        "graph val: 2 nodes, 4 edges with self-loops (1.0 neighbours per node), homophily 1.000"
    )
