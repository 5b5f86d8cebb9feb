"""New utterances attached to training utterances, compared with graphs that are built as a whole."""

from dataclasses import replace

import pytest
import torch

from models.cemobam import CemoBAM
from tests.conftest import make_rows, write_pickle
from tests.prediction.attaching import graph_of, lists_of, trained_model, whole_graph
from tests.pretend_cuda import PretendCuda
from utils.data.features import load_features
from utils.data.safe_pickle import load_tensors, save_tensors
from utils.errors import InputError
from utils.prediction.inductive import Attachment, Predictor, TrainingGraph, edges_into_new, load_training_graph
from utils.training.folder import GRAPH_FILE, save_training_graph
from utils.training.graph import NeighborLists, build_graph, neighbor_lists, prepare

CPU = torch.device("cpu")


@pytest.fixture
def train(tmp_path):
    return load_features(write_pickle(tmp_path / "train.pkl", make_rows(40)))


@pytest.fixture
def new(tmp_path):
    return load_features(write_pickle(tmp_path / "new.pkl", make_rows(12, seed=5)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"profile": "official"},
        {"profile": "refined"},
        {"message_flow": "node_to_neighbors"},
        {"ablation": "no_chgat"},
        {"ablation": "no_xcbam"},
        {"gat_residual": "middle", "num_layers": 4},
        {"gat_norm": "batch", "gat_last_heads": "single"},
    ],
    ids=str,
)
def test_attaching_equals_the_graph_of_train_with_the_new_nodes(train, new, small_config, tmp_path, options):
    config = small_config(**options)
    models = [trained_model(train, config, tmp_path, seed) for seed in (0, 1)]
    new.text[0] = train.text[lists_of(train, config).text[0, -1]]  # as near to node 0 as its last neighbour
    graph = whole_graph(train, new, config)
    together = (torch.cat([train.text, new.text]), torch.cat([train.audio, new.audio]))
    with torch.inference_mode():
        expected = torch.stack([each.model(*together, graph)[len(train) :].softmax(1) for each in models])
    predictor = Predictor(models, graph_of(train, config), CPU)
    assert torch.allclose(predictor.each(new.text, new.audio), expected, atol=1e-6)
    assert torch.allclose(predictor(new.text, new.audio), expected.mean(0), atol=1e-6)
    assert expected.std(1).min() > 1e-4  # the new utterances get different answers


def test_each_model_answers_at_its_temperature(train, new, small_config, tmp_path):
    models = [trained_model(train, small_config(), tmp_path, seed) for seed in (0, 1)]
    graph = graph_of(train, small_config())
    plain = Predictor(models, graph, CPU).each(new.text, new.audio)
    warm = Predictor([models[0], replace(models[1], temperature=2.0)], graph, CPU).each(new.text, new.audio)
    assert torch.equal(warm[0], plain[0])
    assert torch.allclose(warm[1], (plain[1].log() / 2).softmax(1), atol=1e-6)
    assert (warm[1].amax(1) < plain[1].amax(1)).all()


@pytest.mark.parametrize("flow", ["neighbors_to_node", "node_to_neighbors"])
def test_a_run_on_text_alone_does_not_hear_the_recording(train, new, small_config, tmp_path, flow):
    config = small_config(ablation="text_only", message_flow=flow)
    mean = train.audio.mean(0).expand_as(train.audio)
    models = [trained_model(replace(train, audio=mean), config, tmp_path)]
    lists = neighbor_lists(train.text, train.audio, *config.neighbors)
    save_training_graph(tmp_path / "run", train, lists, config.neighbors, {})
    predictor = Predictor(models, load_training_graph(models[0]), CPU)
    found = predictor(new.text, new.audio)
    assert torch.equal(predictor(new.text, torch.randn_like(new.audio)), found)
    assert not torch.allclose(predictor(torch.randn_like(new.text), new.audio), found)


@pytest.mark.parametrize("options", [{}, {"message_flow": "node_to_neighbors"}, {"ablation": "no_chgat"}], ids=str)
def test_answers_of_a_pretended_gpu_are_those_of_the_cpu(train, new, small_config, tmp_path, options):
    config = small_config(**options)

    def answers(device: str) -> torch.Tensor:
        models = [trained_model(train, config, tmp_path, seed) for seed in (0, 1)]
        return Predictor(models, graph_of(train, config), torch.device(device))(new.text, new.audio)

    expected = answers("cpu")
    with PretendCuda() as cuda:
        found = answers("cuda")
        assert found.device == CPU
    assert torch.equal(found, expected)
    assert cuda.kernels
    assert cuda.waits["to the CPU"] == 1


def test_an_answer_does_not_depend_on_other_requests(train, new, small_config, tmp_path):
    predictor = Predictor([trained_model(train, small_config(), tmp_path)], graph_of(train, small_config()), CPU)
    together = predictor(new.text, new.audio)
    alone = torch.cat([predictor(new.text[i : i + 1], new.audio[i : i + 1]) for i in range(len(new))])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together.sum(1), torch.ones(len(new)))


def test_what_is_no_number_is_no_answer(train, new, small_config, tmp_path):
    trained = trained_model(train, small_config(), tmp_path)
    trained.model.classifier[0].bias.data[0] = torch.nan
    predictor = Predictor([trained], graph_of(train, small_config()), CPU)
    with pytest.raises(InputError, match=r"best.pt: the probabilities are not finite; the checkpoint may be damaged"):
        predictor(new.text, new.audio)


@pytest.mark.parametrize(
    "step, message",
    [
        ("layer_inputs", "the training graph does not fit into memory; use --device cpu"),
        ("attach", "a batch does not fit into memory; lower --batch_seconds"),
    ],
)
def test_what_does_not_fit_names_the_option_to_change(train, new, small_config, tmp_path, monkeypatch, step, message):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    trained = trained_model(train, small_config(), tmp_path)
    monkeypatch.setattr(CemoBAM, step, full)
    with pytest.raises(InputError) as caught:
        Predictor([trained], graph_of(train, small_config()), CPU)(new.text, new.audio)
    assert str(caught.value) == message


def test_ties_go_to_the_lower_index_and_a_copy_of_a_training_utterance_finds_it(train, small_config):
    config = small_config(k_text=2, k_audio=1)
    text = train.text.clone()
    text[[3, 7, 20]] = text[11].clone()
    graph = TrainingGraph(text, train.audio, neighbor_lists(text, train.audio, 2, 1), {}, "")
    nodes, attached = edges_into_new(Attachment(graph, config)(text[11:12], train.audio[30:31]).any(0))
    assert nodes.tolist() == [3, 7, 30]
    assert attached.source.tolist() == [0, 1, 2, 3]
    assert attached.target.tolist() == [3, 3, 3, 3]
    assert attached.rowptr.tolist() == [0, 0, 0, 0, 4]


def test_the_training_graph_is_kept_whole(train, small_config, tmp_path):
    config = small_config()
    trained = trained_model(train, config, tmp_path)
    encoders = {"text": {"name": "x", "revision": None, "pooling": "mean", "weights_sha256": "1"}}
    k = config.k_text, config.k_audio
    save_training_graph(tmp_path / "run", train, lists_of(train, config), k, encoders)
    graph = load_training_graph(trained)
    assert torch.equal(graph.text, train.text)
    assert torch.equal(graph.audio, train.audio)
    assert (graph.encoders, graph.sha256) == (encoders, train.sha256)
    names = graph.utterances
    assert (names.ids, names.texts) == ([f"train:{row}" for row in range(40)], [""] * 40)
    assert names.labels == train.label.tolist()
    built = build_graph(graph.lists, config.k_text, config.k_audio)
    assert torch.equal(built.edge_index, prepare(train, config, CPU).graph.edge_index)


def test_a_training_graph_that_is_not_the_runs_is_refused(train, new, small_config, tmp_path):
    config = small_config()
    trained = trained_model(train, config, tmp_path)
    path = tmp_path / "run" / GRAPH_FILE
    with pytest.raises(InputError, match=r"training_graph.pt: no such file; train.py writes it into the run folder"):
        load_training_graph(trained)
    lists, k = lists_of(train, config), (config.k_text, config.k_audio)
    other = f"{path}: belongs to another training than {trained.path}"
    too_far = NeighborLists(lists.text + 30, lists.audio)
    for wrong, wrong_lists in (
        (new, lists_of(new, config)),
        (replace(train, sha256="another"), lists),
        (train, lists_of(train, small_config(k_text=2))),
        (replace(train, text=train.text[:, :3]), lists),
        (replace(train, audio=train.audio[:30]), lists),
        (train, too_far),
    ):
        save_training_graph(path.parent, wrong, wrong_lists, k, {})
        with pytest.raises(InputError) as caught:
            load_training_graph(trained)
        assert str(caught.value) == other
    for wrong in ({"text": train.text * torch.nan}, {"text": train.text.to_sparse()}, {"audio": train.audio[:0]}):
        save_training_graph(path.parent, replace(train, **wrong), lists, k, {})
        refused = r"training_graph.pt: (its \w+ is not a (finite )?matrix|contains a tensor that is not dense)"
        with pytest.raises(InputError, match=refused):
            load_training_graph(trained)
    for encoders in ("x", {"text": "x"}, {"text": {"name": "x"}}):
        save_training_graph(path.parent, train, lists, k, encoders)
        with pytest.raises(InputError, match=r"training_graph.pt: the description of its encoders is invalid"):
            load_training_graph(trained)
    save_tensors(path, {"text": [1, 2]})
    with pytest.raises(InputError, match=r"its text is not a matrix of torch.float32"):
        load_training_graph(trained)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"training_graph.pt: not a complete checkpoint"):
        load_training_graph(trained)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"ids": ["a"] * 39}, "its ids are not a valid list of 40 values; not written by train.py"),
        ({"ids": "a" * 40}, "its ids are not a valid list of 40 values; not written by train.py"),
        ({"texts": [None] * 40}, "its texts are not a valid list of 40 values; not written by train.py"),
        ({"labels": [True] * 40}, "its labels are not a valid list of 40 values; not written by train.py"),
        ({"labels": [0] * 39 + [4]}, "row 39: label 4 is not one of the 4 classes"),
    ],
)
def test_names_that_do_not_fit_the_training_graph_are_refused(train, small_config, tmp_path, wrong, message):
    config, path = small_config(), tmp_path / "run" / GRAPH_FILE
    trained = trained_model(train, config, tmp_path)
    save_training_graph(path.parent, train, lists_of(train, config), config.neighbors, {})
    saved = load_tensors(path)
    save_tensors(path, saved | wrong)
    with pytest.raises(InputError) as caught:
        load_training_graph(trained)
    assert str(caught.value) == f"{path}: {message}"
    save_tensors(path, {name: saved[name] for name in saved if name not in ("ids", "texts", "labels")})
    assert load_training_graph(trained).utterances is None
