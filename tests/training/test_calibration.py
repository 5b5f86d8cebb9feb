import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from utils.training.calibration import (
    brier_score,
    calibration_results,
    calibration_table,
    cross_entropy,
    expected_calibration_error,
    fit_temperature,
    probabilities,
    reliability,
    risk_coverage,
)


def simulated(temperature: float, n: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose probabilities are calibrated at this temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, 4, generator=generator)
    label = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]
    return logits, label


def test_probabilities_are_a_softmax_of_the_scaled_logits():
    logits = torch.tensor([[[2.0, 0.0, -1.0]]])
    scaled = np.exp([1.0, 0.0, -0.5])
    assert np.allclose(probabilities(logits, 2.0)[0, 0], scaled / scaled.sum(), rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found_again(temperature):
    assert fit_temperature(*simulated(temperature)) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_the_fit_is_that_of_a_general_minimiser_and_never_worse_than_none(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = (1 + 2 * seed) * torch.randn(60, 5, generator=generator)
    label = torch.where(torch.rand(60, generator=generator) < 0.6, logits.argmax(1), seed)

    def loss(temperature: float) -> float:
        return F.cross_entropy(logits.double() / temperature, label).item()

    found = fit_temperature(logits, label)
    expected = minimize_scalar(lambda log: loss(np.exp(log)), bounds=np.log((0.05, 20)), options={"xatol": 1e-10})
    assert found == pytest.approx(np.exp(expected.x), rel=1e-4)
    assert loss(found) <= loss(1.0)


def test_the_fit_ends_where_validation_is_all_right_or_all_wrong():
    logits = torch.eye(3)
    assert fit_temperature(logits, torch.arange(3)) == pytest.approx(0.05)
    assert fit_temperature(logits, (torch.arange(3) + 1) % 3) == pytest.approx(20)


def drawn(seeds: int = 3, n: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(classes), (seeds, n)), rng.integers(classes, size=n)


def test_scores_are_those_of_scikit_learn():
    probability, label = drawn()
    for found, reference in ((brier_score, brier_score_loss), (cross_entropy, log_loss)):
        options = {"scale_by_half": False} if reference is brier_score_loss else {}
        expected = [reference(label, of_seed, labels=range(4), **options) for of_seed in probability]
        assert np.allclose(found(probability, label), expected, rtol=1e-12)


def test_ece_of_a_hand_made_case():
    """Bin (0.6, 0.667]: confidences 0.62 and 0.66, one correct. (0.867, 0.933]: 0.9, wrong. 0.2 of five: correct."""
    top, label = np.array([0.62, 0.66, 0.9, 0.2]), np.array([0, 1, 1, 0])
    probability = np.stack([top, *[(1 - top) / 4] * 4], axis=1)
    assert expected_calibration_error(probability[None], label) == pytest.approx((0.28 + 0.9 + 0.8) / 4)
    count, confidence, correct = reliability(probability[None], label)[:, 0]
    assert {place: int(n) for place, n in enumerate(count) if n} == {2: 1, 9: 2, 13: 1}
    assert (confidence[9], correct[9]) == (pytest.approx(1.28), 1)


def test_every_confidence_has_its_bin():
    """From 1 / C to 1, and values that float64 rounds beyond an end."""
    probability = np.array([[[1.0, 0.0], [1 + 1e-15, 0.0], [0.5, 0.5], [1e-300, 0.0]]])
    count = reliability(probability, np.zeros(4, int))[0, 0]
    assert (count[0], count[7], count[14], count.sum()) == (1, 1, 2, 4)


def test_calibrated_probabilities_have_a_small_error_and_overconfident_ones_a_large_one():
    logits, label = simulated(2.0)
    both = np.stack([probabilities(logits, 2.0), probabilities(logits)])
    right, sure = expected_calibration_error(both, label.numpy())
    assert right < 0.02 < 0.15 < sure


def test_a_probability_that_is_rounded_to_0_has_a_finite_cross_entropy():
    assert cross_entropy(np.array([[[1.0, 0.0]]]), np.array([1])) == pytest.approx(708.4, abs=0.1)


def test_risk_over_coverage():
    top, label = np.array([0.7, 0.9, 0.8, 0.6]), np.array([1, 0, 0, 0])
    probability = np.stack([top, 1 - top], axis=1)[None]
    assert risk_coverage(probability, label)[0] == pytest.approx([0, 0, 1 / 3, 1 / 4])


def test_the_order_of_utterances_of_equal_confidence_does_not_matter():
    probability = np.round(drawn()[0], 1)
    label = drawn()[1]
    for order in (np.arange(200)[::-1], np.random.default_rng(1).permutation(200)):
        assert np.allclose(risk_coverage(probability[:, order], label[order]), risk_coverage(probability, label))
    assert np.allclose(risk_coverage(np.ones((1, 4, 2)), np.array([1, 0, 1, 0])), 0.5)


def test_the_table_names_temperatures_and_what_they_were_fitted_on():
    probability, label = drawn(2)
    results = calibration_results({"seed 1": 1.5, "seed 2": 2.5}, probability, probability[::-1], label)
    assert results["seed 1"]["plain"] == results["seed 2"]["scaled"]
    header, first, _, mean, *notes = calibration_table(results, False).splitlines()
    assert header.split("  ")[0] == "calibration"
    values = [100 * results["seed 1"][kind]["ece"] for kind in ("plain", "scaled")]
    assert first.split()[:5] == ["seed", "1", "1.500", *(f"{value:.2f}" for value in values)]
    assert mean.split()[:6] == ["mean", "±", "std", "2.000", "±", "0.707"]
    assert not any("very utterances" in note for note in notes)
    assert "T was fitted on these utterances" in calibration_table(results, True).splitlines()[-1]
    none = calibration_results({"a": 1.0}, probability[:1], probability[:1], label)
    assert calibration_table(none, True).splitlines()[-1] == "No temperature was fitted, so T is 1."
