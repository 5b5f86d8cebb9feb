import pytest
import torch

from models import CemoBAM, ModelConfig
from utils.config import make_config
from utils.training.graph import build_graph, neighbor_lists


@pytest.fixture
def data():
    text, audio = torch.randn(30, 12), torch.randn(30, 9)
    return text, audio, build_graph(neighbor_lists(text, audio, 4, 3), 4, 3)


def test_node_features_are_text_then_audio(data):
    """Eq. (1), after each modality is projected."""
    model = CemoBAM(ModelConfig(16), 12, 9, 4).eval()
    seen = []
    model.ch_gat.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    text, audio, graph = data
    model(text, audio, graph)
    expected = torch.cat([model.text_projection(text), model.audio_projection(audio)], dim=1)
    assert torch.equal(seen[0], expected)


def test_defaults_are_those_of_profile_paper():
    assert ModelConfig() == make_config({}).model


def test_classifier_sees_graph_then_fused(data):
    model = CemoBAM(ModelConfig(16), 12, 9, 4).eval()
    text, audio, graph = data
    t, a = model.text_projection(text), model.audio_projection(audio)
    expected = torch.cat([model.ch_gat(torch.cat([t, a], 1), graph), model.xcbam(t, a)], dim=1)
    assert torch.equal(model.branches(text, audio, graph), expected)
    logits = model(text, audio, graph)
    assert logits.shape == (30, 4)
    assert torch.equal(logits, model.classifier[-1](model.embed(text, audio, graph)))


@pytest.mark.parametrize(
    "ablation, has_graph, has_fusion, has_cbam",
    [
        ("none", True, True, True),
        ("no_xcbam", True, False, False),
        ("no_chgat", False, True, True),
        ("no_cbam", True, True, False),
        ("no_chgat_no_cbam", False, True, False),
    ],
)
def test_ablations(data, ablation, has_graph, has_fusion, has_cbam):
    model = CemoBAM(ModelConfig(16, ablation=ablation), 12, 9, 4).eval()
    names = [name for name, _ in model.named_parameters()]
    assert any(n.startswith("ch_gat.") for n in names) == has_graph
    assert any(n.startswith("xcbam.") for n in names) == has_fusion
    assert any(".cbam." in n for n in names) == has_cbam
    assert model.classifier[0].in_features == 16 * (has_graph + has_fusion)
    text, audio, graph = data
    lonely = build_graph(neighbor_lists(audio, text, 1, 1), 1, 1)
    assert torch.equal(model(text, audio, graph), model(text, audio, lonely)) != has_graph


def test_each_fusion_is_another_model(data):
    outputs = []
    for fusion in ("min", "max", "mean", "cls"):
        torch.manual_seed(1)
        outputs.append(CemoBAM(ModelConfig(16, fusion_type=fusion), 12, 9, 4).eval()(*data))
    assert all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


def test_unknown_ablation_is_refused():
    with pytest.raises(ValueError, match="ablation no_audio: expected one of"):
        ModelConfig(ablation="no_audio")
