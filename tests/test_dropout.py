import pytest
import torch

from models.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.97])
def test_rate_scale_and_gradient(p):
    x = torch.full((1001, 999), 2.0, requires_grad=True)  # a count that is no multiple of four
    out = Dropout(p)(x)
    dropped = out == 0
    assert dropped.float().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5 + 2**-17)
    assert torch.allclose(out[~dropped], torch.tensor(2 / (1 - p)), rtol=2e-3)
    out.sum().backward()
    assert torch.allclose(x.grad, out.detach() / 2)


def test_every_lane_of_a_draw_is_uniform_and_its_own():
    """Four elements share a 64-bit draw: each must drop at the same rate, and none must follow another."""
    kept = (Dropout(0.3)(torch.ones(400_000)) > 0).float().view(-1, 4)
    assert torch.allclose(kept.mean(0), torch.tensor(0.7), atol=0.006)
    assert (torch.corrcoef(kept.T) - torch.eye(4)).abs().max() < 0.015


def test_follows_the_seed_and_is_off_in_evaluation():
    x = torch.ones(100)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(Dropout(0.5)(x))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
