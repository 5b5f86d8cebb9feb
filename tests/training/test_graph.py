import pytest
import torch
from torch_geometric.utils import homophily, remove_self_loops

from models.ops import NeighborGraph
from tests.reference import edges_by_loop
from utils.errors import InputError
from utils.training.graph import NeighborLists, build_graph, edge_homophily, neighbor_lists, prepare, top_k_neighbors


def edge_set(graph: NeighborGraph) -> set[tuple[int, int]]:
    return set(zip(graph.source.tolist(), graph.target.tolist(), strict=True))


@pytest.mark.parametrize("k_text, k_audio", [(1, 1), (3, 5), (7, 2)])
def test_edges_are_those_of_equation_2(k_text, k_audio):
    text, audio = torch.randn(30, 4), torch.randn(30, 6)
    text[[3, 9, 20]] = text[0].clone()  # equal transcripts
    graph = build_graph(neighbor_lists(text, audio, k_text, k_audio), k_text, k_audio)
    # (i, j) of Eq. (2) is a message j -> i
    assert edge_set(graph) == {(j, i) for i, j in edges_by_loop(text, audio, k_text, k_audio)}
    assert graph.num_edges == len(edge_set(graph)), "an edge stands in the list twice"


def test_published_code_sends_the_messages_the_other_way():
    lists = neighbor_lists(torch.randn(20, 4), torch.randn(20, 4), 3, 2)
    there, back = (build_graph(lists, 3, 2, flow) for flow in ("neighbors_to_node", "node_to_neighbors"))
    assert edge_set(back) == {(j, i) for i, j in edge_set(there)}
    assert edge_set(back) != edge_set(there)


def test_four_nodes_by_hand():
    # nodes 0 and 1 have one direction, 2 and 3 another; 1 lies between 0 and 2
    text = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    assert top_k_neighbors(text, 2).tolist() == [[1, 2], [0, 2], [3, 1], [2, 1]]
    lists = NeighborLists(top_k_neighbors(text, 1), top_k_neighbors(text, 1))
    graph = build_graph(lists, 1, 1)
    assert edge_set(graph) == {(0, 0), (1, 1), (2, 2), (3, 3), (1, 0), (0, 1), (3, 2), (2, 3)}


@pytest.mark.parametrize("flow", ["neighbors_to_node", "node_to_neighbors"])
def test_rows_are_sorted_by_the_receiving_node(flow):
    graph = build_graph(neighbor_lists(torch.randn(25, 3), torch.randn(25, 3), 4, 4), 4, 4, flow)
    for node in range(25):
        mine = slice(int(graph.rowptr[node]), int(graph.rowptr[node + 1]))
        assert set(graph.target[mine].tolist()) == {node}
        assert node in graph.source[mine].tolist()
    assert graph.rowptr[-1] == graph.num_edges


def test_self_is_left_out_among_duplicates_and_ties_go_to_the_lower_index():
    rows = torch.randn(3, 8).repeat_interleave(4, dim=0)  # 0-3, 4-7 and 8-11 are equal
    neighbors = top_k_neighbors(rows, 3)
    for i in range(12):
        group = range(4 * (i // 4), 4 * (i // 4) + 4)
        assert neighbors[i].tolist() == [j for j in group if j != i]


def test_duplicates_tie_whatever_their_length_and_place():
    rows = torch.randn(400, 64)
    rows[200:] = rows[:200]
    neighbors = top_k_neighbors(rows, 399)
    place = torch.zeros(400, 400, dtype=torch.long).scatter_(1, neighbors, torch.arange(399).expand(400, -1))
    others = torch.arange(200)
    for i in (0, 57, 399):
        pairs = [j for j in others.tolist() if i not in (j, j + 200)]
        assert all(place[i, j] + 1 == place[i, j + 200] for j in pairs), "equal rows are not next to each other"


def test_cosine_does_not_depend_on_length():
    rows = torch.randn(60, 5)
    scaled = rows * torch.logspace(-14, 14, 60)[:, None]
    assert torch.equal(top_k_neighbors(rows.double(), 4), top_k_neighbors(scaled.double(), 4))
    assert torch.equal(top_k_neighbors(rows, 4), top_k_neighbors(rows * 1e-14, 4))


def test_drop_first_keeps_a_duplicate_from_itself_only_where_it_ranks_first():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert top_k_neighbors(rows, 1, "drop_first").tolist() == [[1], [1], [0]]  # row 1 is its own neighbour
    assert top_k_neighbors(rows, 1, "mask").tolist() == [[1], [0], [0]]


def test_a_smaller_k_is_a_slice_of_a_larger():
    text, audio = torch.randn(40, 5), torch.randn(40, 5)
    full = neighbor_lists(text, audio, 10, 10)
    for k_text, k_audio in ((1, 10), (4, 7)):
        sliced = build_graph(full, k_text, k_audio)
        direct = build_graph(neighbor_lists(text, audio, k_text, k_audio), k_text, k_audio)
        assert torch.equal(sliced.edge_index, direct.edge_index)


def test_blocks_and_threads_do_not_change_the_lists(monkeypatch):
    rows = torch.randn(300, 32)
    whole = top_k_neighbors(rows, 9)
    monkeypatch.setattr("utils.training.graph._BLOCK_VALUES", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(top_k_neighbors(rows, 9), whole)
    finally:
        torch.set_num_threads(threads)


def test_no_matrix_of_all_pairs_is_made(monkeypatch):
    """At N = 100 000, an N x N matrix would be 80 GB. The largest tensor must follow the block, not N squared."""
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    monkeypatch.setattr("utils.training.graph._BLOCK_VALUES", 1)
    with Watch():
        top_k_neighbors(torch.randn(1500, 8), 5)
    assert 0 < largest <= 64 * 1500


@pytest.mark.parametrize("k", [0, 5, 6])
def test_k_beyond_the_other_nodes_is_refused(k):
    with pytest.raises(InputError, match=rf"k = {k}.*1 to 4"):
        top_k_neighbors(torch.randn(5, 3), k)


def test_homophily_counts_edges_between_different_nodes():
    graph = NeighborGraph(
        source=torch.tensor([0, 1, 1, 2, 2, 0]),
        target=torch.tensor([0, 0, 1, 1, 2, 2]),
        rowptr=torch.tensor([0, 2, 4, 6]),
    )
    assert edge_homophily(graph, torch.tensor([7, 7, 3])) == pytest.approx(1 / 3)  # of 1->0, 2->1, 0->2 only the first


def test_homophily_is_that_of_pyg():
    label = torch.randint(4, (50,))
    for edges in (torch.randint(50, (2, 400)), torch.arange(50).expand(2, 50)):  # the second has only self-loops
        graph = NeighborGraph.from_edges(*edges, 50)
        expected = homophily(remove_self_loops(edges)[0], label, method="edge")
        assert edge_homophily(graph, label) == pytest.approx(expected, abs=0, nan_ok=True)


@pytest.mark.parametrize(("kept", "removed"), [("text", "audio"), ("audio", "text")])
@pytest.mark.parametrize("scope", ["split", "with_train"])
def test_a_removed_modality_is_its_training_mean_and_has_no_neighbours(toy_data, small_config, kept, removed, scope):
    ablation = f"{kept}_only"
    config = small_config(ablation=ablation, graph_scope=scope)
    train, val = (toy_data.splits[split] for split in ("train", "val"))
    cpu = torch.device("cpu")
    for graph in (toy_data.graph("val", config, cpu), prepare(val, config, cpu, train)):
        own = slice(graph.context, None)
        assert torch.equal(getattr(graph, removed)[own], getattr(train, removed).mean(0).expand(len(val), -1))
        assert torch.equal(getattr(graph, kept)[own], getattr(val, kept))
        both = getattr(graph, kept)
        k = getattr(config, f"k_{kept}")
        assert edge_set(graph.graph) == edge_set(build_graph(neighbor_lists(both, both, k, k), k, k))
    toy_data.graph("val", small_config(), cpu)  # the shared lists contain both modalities again
    assert toy_data.lists("val", small_config()).audio.size(1) >= 2
    with pytest.raises(InputError, match=f"--k_{kept} 24"):
        toy_data.check(small_config(ablation=ablation, **{f"k_{kept}": 24}))
    toy_data.check(small_config(ablation=ablation, **{f"k_{removed}": 24}))
