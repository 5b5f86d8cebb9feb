import pytest
import torch
from torch import nn

from models.config import FUSIONS, ModelConfig
from models.xcbam import CBAM1D, FUSE, XCBAM, SingleTokenAttention
from tests.reference import apply_cbam


def copy_attention(reference: nn.MultiheadAttention) -> SingleTokenAttention:
    ours = SingleTokenAttention(reference.embed_dim, reference.num_heads, reference.dropout)
    ours.value_proj.weight.data.copy_(reference.in_proj_weight.chunk(3)[2])
    ours.value_proj.bias.data.copy_(reference.in_proj_bias.chunk(3)[2])
    ours.out_proj.load_state_dict(reference.out_proj.state_dict())
    return ours


def test_attention_equals_reference_multihead_attention_over_length_1():
    reference = nn.MultiheadAttention(32, 4, dropout=0.3, batch_first=True).eval()
    nn.init.normal_(reference.in_proj_bias)
    query, value = torch.randn(10, 32), torch.randn(10, 32)
    expected, weights = reference(query.unsqueeze(1), value.unsqueeze(1), value.unsqueeze(1))
    assert torch.allclose(copy_attention(reference).eval()(value), expected.squeeze(1), atol=1e-5)
    assert torch.equal(weights, torch.ones(10, 1, 1))  # for any query


def test_attention_dropout_leaves_out_whole_heads():
    attention = SingleTokenAttention(32, 4, dropout=0.5).train()
    attention.out_proj = nn.Identity()
    value = torch.randn(200, 32)
    ratio = (attention(value) / attention.value_proj(value)).view(200, 4, 8)
    assert torch.allclose(ratio, ratio[:, :, :1].expand_as(ratio), atol=1e-4)
    assert set(ratio.round().flatten().tolist()) == {0.0, 2.0}


def test_initial_value_weights_spread_as_in_multihead_attention():
    ours, reference = SingleTokenAttention(256, 4, 0.0), nn.MultiheadAttention(256, 4)
    expected = reference.in_proj_weight.std().item()
    assert ours.value_proj.weight.std().item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("gate, one_sigmoid", [("sum_then_sigmoid", True), ("sum_of_sigmoids", False)])
def test_cbam_is_equations_3_and_4(gate, one_sigmoid):
    ours = CBAM1D(32, channel_gate=gate)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)  # large enough that both sigmoids matter
    theirs = nn.ModuleDict({"channel_attention_mlp": ours.mlp, "spatial_attention": nn.Sequential(ours.conv)})
    x = torch.randn(10, 32)
    assert torch.allclose(ours(x), apply_cbam(theirs, x, one_sigmoid), atol=1e-5)


def test_channel_gate_by_hand():
    """Of 16 channels, W1 reads the first and W2 passes its value to the second. The convolution is zero."""
    cbam = CBAM1D(16)
    nn.init.zeros_(cbam.conv.weight)  # sigma(0) = 1/2
    w1, w2 = cbam.mlp[0].weight, cbam.mlp[2].weight
    nn.init.zeros_(w1)
    nn.init.zeros_(w2)
    w1.data[0, 0] = 1.0
    w2.data[1, 0] = 0.75
    x = torch.zeros(1, 16)
    x[0, 0], x[0, 1] = 2.0, 1.0
    gate = torch.sigmoid(torch.tensor(0.75 * 2 + 0.75 * 2))  # one sigmoid, after the sum
    assert cbam(x)[0, 1].item() == pytest.approx(0.5 * gate.item(), abs=1e-6)
    cbam.channel_gate = "sum_of_sigmoids"
    assert cbam(x)[0, 1].item() == pytest.approx(0.5 * 2 * torch.sigmoid(torch.tensor(1.5)).item(), abs=1e-6)


def test_spatial_gate_is_a_kernel_of_7_over_average_and_maximum():
    cbam = CBAM1D(16)
    for parameter in cbam.mlp.parameters():
        nn.init.zeros_(parameter)  # a gate of 1/2 on every channel
    x = torch.randn(1, 16)
    gated = x[0] / 2
    kernel = cbam.conv.weight[0]  # [2, 7]
    padded = torch.cat([torch.zeros(3), gated, torch.zeros(3)])
    for i in range(16):
        window = padded[i : i + 7]
        expected = gated[i] * torch.sigmoid((kernel[0] * window).sum() + (kernel[1] * window).sum())
        assert cbam(x)[0, i].item() == pytest.approx(expected.item(), abs=1e-6)


def test_fusions_by_hand():
    a2t, t2a = torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, -1.0]])
    expected = {"min": [[1.0, -1.0]], "max": [[3.0, 5.0]], "mean": [[2.0, 2.0]], "cls": [[1.0, 5.0]]}
    assert {name: FUSE[name](a2t, t2a).tolist() for name in FUSIONS} == expected


def test_audio_to_text_asks_with_audio_and_reads_text():
    """A->T (II.C.1): audio enters only through the residual, text only through the values."""
    model = XCBAM(ModelConfig(32, fusion_type="cls", ablation="no_cbam")).eval()
    text, audio = torch.randn(4, 32), torch.randn(4, 32)
    layer = model.audio_to_text
    expected = layer.norm(layer.linear(layer.attention(text)) + audio)
    assert torch.allclose(model(text, audio), expected)
    nn.init.zeros_(layer.linear.weight)
    assert torch.equal(model(text, audio), model(torch.randn(4, 32), audio))


def test_streams_do_not_share_weights():
    model = XCBAM(ModelConfig(32))
    assert not {id(p) for p in model.audio_to_text.parameters()} & {id(p) for p in model.text_to_audio.parameters()}
    assert model.audio_to_text.cbam is not None


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fusion_type": "sum"}, "fusion_type sum: expected one of min, max, mean, cls"),
        ({"hidden_dim": 30}, "hidden_dim 30: must be a multiple of the 4 heads"),
        ({"hidden_dim": 8}, "hidden_dim 8: must be at least 16"),
        ({"heads": "4"}, "heads '4': must be of type int"),
        ({"channel_gate": "none"}, "channel_gate none: expected one of"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**options)
