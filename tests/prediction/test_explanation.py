"""Explanations compared with answers that standard modules compute again on the whole graph."""

import copy
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmarks.pyg_reference import with_reference_parts
from models.ops import NeighborGraph
from tests.conftest import make_rows, write_pickle
from tests.prediction.attaching import graph_of, lists_of, trained_model, whole_graph
from tests.pretend_cuda import PretendCuda
from utils.data.features import load_features
from utils.errors import InputError
from utils.prediction import explanation as module
from utils.prediction.explanation import as_dict, explain, lines, plot
from utils.prediction.inductive import Attachment, Predictor, load_training_graph
from utils.training.folder import save_training_graph

CPU = torch.device("cpu")
NAMES = tuple("abcd")
PROFILES = [
    {},
    {"profile": "official"},
    {"profile": "refined"},
    {"message_flow": "node_to_neighbors"},
    {"ablation": "no_xcbam"},
    {"gat_last_heads": "single", "num_layers": 4},
]


@pytest.fixture
def train(tmp_path):
    path = write_pickle(tmp_path / "train.pkl", make_rows(40))
    rows = [f'r/u{row}.wav,"Word, {row}",{row % 4}\n' for row in range(40)]
    path.with_suffix(".csv").write_text("audio_file,raw_text,label\n" + "".join(rows))
    return load_features(path)


@pytest.fixture
def new(tmp_path):
    return load_features(write_pickle(tmp_path / "new.pkl", make_rows(12, seed=5)))


@pytest.fixture
def predictor_of(train, tmp_path, small_config):
    """The Predictor of a run of two models with different temperatures. Its training graph is read from a file."""

    def make(device: str = "cpu", **options) -> Predictor:
        config = small_config(**options)
        models = [trained_model(train, config, tmp_path, seed) for seed in (0, 1)]
        save_training_graph(tmp_path / "run", train, lists_of(train, config), config.neighbors, {})
        models[1] = replace(models[1], temperature=2.0)
        return Predictor(models, load_training_graph(models[0]), torch.device(device))

    return make


@torch.inference_mode()
def computed_again(predictor: Predictor, train, new, graph: NeighborGraph, without=()) -> torch.Tensor:
    """The answer of PyG's layers on the graph of train and one new utterance, without some of the edges into it."""
    keep = (graph.target < len(train)) | ~torch.isin(graph.source, torch.tensor(without, dtype=torch.long))
    graph = NeighborGraph.from_edges(graph.source[keep], graph.target[keep], len(train) + 1)
    together = torch.cat([train.text, new.text]), torch.cat([train.audio, new.audio])
    found = [
        with_reference_parts(copy.deepcopy(each.model)).eval()(*together, graph)[-1] / each.temperature
        for each in predictor.trained
    ]
    return torch.stack(found).softmax(-1).mean(0)


def row(features, i: int):
    return replace(features, **{name: getattr(features, name)[i : i + 1] for name in ("text", "audio", "label")})


def explained(predictor, new, i):
    return explain(predictor, new.text[i], new.audio[i])


@pytest.mark.parametrize("options", PROFILES, ids=str)
def test_the_answer_without_a_neighbour_is_the_one_computed_again(predictor_of, train, new, options):
    predictor, changes = predictor_of(**options), []
    for i in range(3):
        found, one = explained(predictor, new, i), row(new, i)
        graph = whole_graph(train, one, predictor.trained[0].config)
        sources = graph.source[graph.target == len(train)].tolist()
        assert sorted(each.id for each in found.neighbors) == sorted(f"r/u{j}.wav" for j in sources[:-1])
        again = computed_again(predictor, train, one, graph)
        assert torch.allclose(torch.tensor(found.probabilities), again, rtol=0, atol=1e-5)
        for each in found.neighbors:
            again = computed_again(predictor, train, one, graph, [int(each.id[3:-4])])
            assert torch.allclose(torch.tensor(each.without), again, rtol=0, atol=1e-5)
            changes.append(abs(found.change(each.without)))
        alone = computed_again(predictor, train, one, graph, range(len(train)))
        assert torch.allclose(torch.tensor(found.without_graph), alone, rtol=0, atol=1e-5)
    assert max(changes) > 1e-3


@pytest.mark.parametrize("options", PROFILES, ids=str)
def test_attention_is_that_of_the_layers_on_the_whole_graph(predictor_of, train, new, options):
    predictor, one = predictor_of(**options), row(new, 4)
    found = explained(predictor, new, 4)
    graph, expected = whole_graph(train, one, predictor.trained[0].config), []
    together = torch.cat([train.text, one.text]), torch.cat([train.audio, one.audio])
    into = graph.target == len(train)
    with torch.inference_mode():
        for each in predictor.models:
            inputs = each.layer_inputs(*together, graph)
            blocks = zip(each.ch_gat.blocks, inputs, strict=True)
            expected.append(torch.stack([block.conv.attention(x, graph)[into].mean(1) for block, x in blocks]))
    expected = dict(zip(graph.source[into].tolist(), torch.stack(expected).mean(0).T, strict=True))
    assert torch.allclose(torch.tensor(found.self_attention), expected.pop(len(train)), atol=1e-6)
    assert len(found.neighbors) == len(expected) > 1
    for each in found.neighbors:
        assert torch.allclose(torch.tensor(each.attention), expected[int(each.id[3:-4])], atol=1e-6)
    layers = predictor.trained[0].config.model.num_layers
    sums = torch.tensor([found.self_attention, *(each.attention for each in found.neighbors)]).sum(0)
    assert torch.allclose(sums, torch.ones(layers), atol=1e-6)
    means = [each.mean_attention for each in found.neighbors]
    assert means == sorted(means, reverse=True)
    assert means[0] > means[-1] + 1e-3


@pytest.mark.parametrize("options", [*PROFILES, {"ablation": "no_chgat"}, {"ablation": "text_only"}], ids=str)
def test_answers_are_those_of_the_predictor(predictor_of, train, new, options):
    """The answer is bitwise equal to that of a single request, and equal to that of a batch within 1e-6."""
    predictor = predictor_of(**options)
    text, audio = new.text[2:3], new.audio[2:3]
    found = explained(predictor, new, 2)
    assert found.probabilities == tuple(predictor(text, audio)[0].tolist())
    assert found.without_text == tuple(predictor(train.text.mean(0)[None], audio)[0].tolist())
    assert found.without_audio == tuple(predictor(text, train.audio.mean(0)[None])[0].tolist())
    assert torch.allclose(torch.tensor(found.probabilities), predictor(new.text, new.audio)[2], atol=1e-6)
    assert list(found.answers) == ["answer", "without text", "without audio", "without graph"][: len(found.answers)]
    assert found.without_text != found.probabilities
    assert (found.without_audio == found.probabilities) == (options.get("ablation") == "text_only")


def test_without_ch_gat_there_are_no_neighbours(predictor_of, new, tmp_path):
    found = explained(predictor_of(ablation="no_chgat"), new, 0)
    assert (found.without_graph, found.self_attention, found.neighbors) == (None, (), ())
    assert list(found.answers) == ["answer", "without text", "without audio"]
    assert lines(found, NAMES)[-1] == "no neighbours: the model has no CH-GAT"
    assert as_dict(found, NAMES)["without_graph"] is None
    plot(found, NAMES, tmp_path / "e.png", "title")


def test_a_neighbour_is_the_row_of_the_training_csv(predictor_of, train, new, small_config):
    predictor, kinds = predictor_of(), set()
    members = Attachment(graph_of(train, small_config()), small_config())(new.text, new.audio)
    for i in range(len(new)):
        by_text, by_audio = members[:, i]
        for each in explained(predictor, new, i).neighbors:
            j = int(each.id[3:-4])
            assert (each.text, each.label) == (f"Word, {j}", int(train.label[j]))
            cosine = F.cosine_similarity(new.text[i], train.text[j], dim=0).item()
            assert each.text_similarity == pytest.approx(cosine, abs=1e-6)
            cosine = F.cosine_similarity(new.audio[i], train.audio[j], dim=0).item()
            assert each.audio_similarity == pytest.approx(cosine, abs=1e-6)
            assert each.by == {(1, 0): "text", (0, 1): "audio", (1, 1): "both"}[int(by_text[j]), int(by_audio[j])]
            kinds.add(each.by)
    assert kinds == {"text", "audio", "both"}


def test_a_run_on_text_alone_has_neighbours_by_text_alone(predictor_of, new):
    found = explained(predictor_of(ablation="text_only"), new, 0)
    assert [each.by for each in found.neighbors] == ["text"] * 3


def test_an_utterance_that_is_nobodys_neighbour_attends_to_itself(predictor_of, train, new):
    predictor = predictor_of(message_flow="node_to_neighbors")
    found = explain(predictor, -train.text.mean(0), -train.audio.mean(0))
    assert (found.neighbors, found.self_attention) == ((), (1.0, 1.0, 1.0))
    assert found.without_graph == found.probabilities
    assert "(the utterance itself)" in "\n".join(lines(found, NAMES))


def test_batches_of_answers_change_nothing(predictor_of, new, monkeypatch):
    predictor = predictor_of()
    whole = explained(predictor, new, 1)
    monkeypatch.setattr(module, "EDGES", 8)
    parts = explained(predictor, new, 1)
    for one, other in zip(whole.neighbors, parts.neighbors, strict=True):
        assert one.id == other.id
        assert one.without == pytest.approx(other.without, abs=1e-6)


def test_a_pretended_gpu_gives_the_same(predictor_of, new):
    expected = explained(predictor_of(), new, 0)
    with PretendCuda() as cuda:
        assert explained(predictor_of("cuda"), new, 0) == expected
    assert cuda.kernels


def test_a_graph_that_does_not_name_its_utterances_says_so(predictor_of, train, new, tmp_path):
    predictor = predictor_of()
    predictor.graph = replace(predictor.graph, utterances=None)
    assert predictor(new.text, new.audio).shape == (12, 4)
    with pytest.raises(InputError) as caught:
        explained(predictor, new, 0)
    path = tmp_path / "run" / "training_graph.pt"
    assert str(caught.value) == f"{path}: does not name the training utterances (train.py --resume writes it again)"


def test_lines_are_a_table_of_answers_and_one_of_neighbours(predictor_of, new):
    found = explained(predictor_of(), new, 0)
    longest = replace(found.neighbors[0], id="/home/" + "x" * 40 + "/last.wav", text="\x1b[31m" + "word " * 30)
    found = replace(found, neighbors=(longest, *found.neighbors[1:]))
    shown = lines(found, NAMES, most=2)
    top, none = NAMES[found.prediction], shown.index("")
    assert shown[0].split() == ["percent", "emotion", *NAMES, "change", "of", top]
    assert shown[1].split() == ["answer", top, *(f"{100 * p:.1f}" for p in found.probabilities)]
    for line, without in zip(
        shown[2:none], (found.without_text, found.without_audio, found.without_graph), strict=True
    ):
        assert line.split()[2] == NAMES[max(range(4), key=without.__getitem__)]
        change = without[found.prediction] - found.probabilities[found.prediction]
        assert line.split()[-1] == f"{100 * change:+.1f}"
    first = shown[none + 4]
    assert first.startswith("…xxxxx") and "/last.wav" in first
    assert "\x1b" not in first and first.endswith("…")
    cells = f"{100 * longest.mean_attention:.1f}", f"{100 * found.change(longest.without):+.1f}"
    assert all(cell in first for cell in cells)
    assert shown[-1] == f"and {len(found.neighbors) - 2} more"
    assert len(shown) == none + 7
    assert max(map(len, shown)) < 180


def test_json_has_the_same_by_name(predictor_of, new):
    found = explained(predictor_of(), new, 0)
    data = json.loads(json.dumps(as_dict(found, NAMES), allow_nan=False))
    assert list(data["probabilities"].values()) == pytest.approx(found.probabilities, abs=1e-6)
    assert data["emotion"] == max(data["probabilities"], key=data["probabilities"].get)
    assert len(data["neighbors"]) == len(found.neighbors)
    one, other = data["neighbors"][0], found.neighbors[0]
    assert (one["audio_file"], one["raw_text"], one["emotion"]) == (other.id, other.text, NAMES[other.label])
    assert list(one["without"].values()) == pytest.approx(other.without, abs=1e-6)
    assert one["attention"] == pytest.approx(other.attention, abs=1e-6)
    assert sum(layer[0] for layer in [data["self_attention"], *(each["attention"] for each in data["neighbors"])]) == (
        pytest.approx(1, abs=1e-5)
    )
