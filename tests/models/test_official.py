import pytest
import torch

from models import CemoBAM
from models.official import from_official, infer_dimensions
from tests.reference import OfficialReference, randomised
from utils.config import make_config
from utils.errors import InputError
from utils.training.graph import build_graph, neighbor_lists
from utils.training.trained import load_official

SIZES = {"text_dim": 20, "audio_dim": 14, "dim": 32, "classes": 5, "heads": 4, "layers": 4}


def old_spelling(state: dict) -> dict:
    """Older PyG saved the single weight of a GATConv twice, as lin_src and as lin_dst."""
    old = {}
    for name, tensor in state.items():
        if name.startswith("gnn.") and name.endswith("lin.weight"):
            old[name.replace("lin.weight", "lin_src.weight")] = tensor
            old[name.replace("lin.weight", "lin_dst.weight")] = tensor
        else:
            old[name] = tensor
    return old


def only_lin_src(state: dict) -> dict:
    return {name: tensor for name, tensor in old_spelling(state).items() if "lin_dst" not in name}


@pytest.mark.parametrize("fusion", ["min", "max", "mean", "cls"])
@pytest.mark.parametrize("spelling", [dict, old_spelling, only_lin_src])
def test_a_published_checkpoint_gives_the_published_logits(tmp_path, fusion, spelling):
    reference = randomised(OfficialReference(**SIZES, fusion=fusion))
    path = tmp_path / f"ESD_HemoGAT_{fusion}.pt"
    torch.save(spelling(reference.state_dict()), path)
    trained = load_official(path, {})
    assert (trained.config.dataset, trained.config.model.fusion_type) == ("ESD", fusion)
    assert (trained.config.k_text, trained.config.k_audio, trained.config.model.num_layers) == (5, 4, 4)
    assert trained.class_names == ("neutral", "angry", "happy", "sad", "surprise")

    text, audio = torch.randn(40, 20), torch.randn(40, 14)
    graph = build_graph(neighbor_lists(text, audio, 5, 4), 5, 4, trained.config.message_flow)
    with torch.no_grad():
        ours, theirs = trained.model(text, audio, graph), reference(text, audio, graph.edge_index)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert theirs.std() > 0.05


def test_paper_differences_are_differences(tmp_path):
    """With Eq. (3) or the direction of Eq. (2), the same weights give other logits, so the test above can fail."""
    reference = randomised(OfficialReference(**SIZES))
    path = tmp_path / "ESD_min.pt"
    torch.save(reference.state_dict(), path)
    text, audio = torch.randn(40, 20), torch.randn(40, 14)
    lists = neighbor_lists(text, audio, 5, 4)
    official = build_graph(lists, 5, 4, "node_to_neighbors")
    base = load_official(path, {}).model(text, audio, official)
    other_gate = load_official(path, {"channel_gate": "sum_then_sigmoid"}).model(text, audio, official)
    other_flow = load_official(path, {}).model(text, audio, build_graph(lists, 5, 4))
    assert (base - other_gate).abs().max() > 1e-3
    assert (base - other_flow).abs().max() > 1e-3


def test_published_size_has_the_published_names():
    """The names of the published state dict: all weights except those that attention over length 1 cannot use."""
    state = OfficialReference().state_dict()
    assert infer_dimensions(state) == {
        "text_dim": 768,
        "audio_dim": 768,
        "num_classes": 4,
        "hidden_dim": 512,
        "heads": 4,
        "num_layers": 3,
    }
    model = CemoBAM(make_config({"profile": "official"}).model, 768, 768, 4)
    ours = from_official(state, 3)
    assert ours.keys() == model.state_dict().keys()
    unused = 2 * (2 * 512 * 512 + 2 * 512)  # query and key projections of both streams
    assert (
        sum(p.numel() for p in model.parameters())
        == sum(t.numel() for n, t in state.items() if "running" not in n and "tracked" not in n) - unused
    )


def drop(state, name):
    return {n: t for n, t in state.items() if n != name}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: drop(s, "mlp.4.weight"), r"not a state dict of the published code \('mlp.4.weight' is missing\)"),
        (lambda s: drop(s, "gnn.conv_last.bias"), "the weights do not fit.*conv.*bias"),
        (lambda s: {**s, "extra.weight": torch.ones(1)}, "'extra.weight' is not an entry"),
        (lambda s: {**s, "mlp.0.weight": torch.ones(3, 3)}, "the weights do not fit"),
        (
            lambda s: {**s, "gnn.conv1.lin_dst.weight": torch.ones(1)} | {"gnn.conv1.lin_src.weight": torch.zeros(1)},
            "differs from its lin_src",
        ),
        (lambda s: {**s, "gnn.conv1.att_src": torch.ones(4)}, r"'gnn.conv1.att_src' has shape \[4\], expected 3"),
        (lambda s: {**s, "cross_fusion.text_attention.in_proj_bias": torch.ones(())}, "chunk"),
        (lambda s: {**s, "cross_fusion.text_attention.in_proj_bias": torch.ones(1)}, "out of range"),
        (lambda s: {**s, "mlp.4.weight": torch.ones(0, 32)}, "the weights do not fit"),
        (
            lambda s: {**s, "mlp.4.bias": torch.full((5,), torch.inf)},
            "classifier.4.bias holds a value",
        ),
        (lambda s: {7: torch.ones(1), **s}, "expected strings as keys, found 7"),
        (lambda s: {**s, "mlp.0.weight": 3}, "not a state dict, which holds only tensors"),
    ],
)
def test_other_state_dicts_are_refused(tmp_path, change, message):
    path = tmp_path / "ESD_min.pt"
    torch.save(change(OfficialReference(**SIZES).state_dict()), path)
    with pytest.raises(InputError, match=rf"ESD_min\.pt: .*({message})"):
        load_official(path, {})


def test_unknown_dataset_needs_k(tmp_path):
    path = tmp_path / "mine.pt"
    torch.save(OfficialReference(**SIZES).state_dict(), path)
    with pytest.raises(InputError, match=r"mine\.pt: its name does not tell the dataset.*--k_text and --k_audio"):
        load_official(path, {})
    trained = load_official(path, {"k_text": 2, "k_audio": 3, "fusion_type": "max"})
    assert (trained.config.k_text, trained.config.k_audio, trained.config.model.fusion_type) == (2, 3, "max")
    assert trained.class_names[0] == "class 0"
