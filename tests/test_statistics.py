"""Intervals over clusters, tested by simulation and by comparison with independent implementations."""

import numpy as np
import pytest
from scipy.stats import permutation_test, t, ttest_1samp

from utils.statistics import cluster_counts, clustered, clusters_of, detectable, swap_test
from utils.training.metrics import METRICS, metric_over_seeds, metrics_of


def identity(n: int, **known: list[str]) -> dict[str, list[str]]:
    return {name: known.get(name, [""] * n) for name in ("speaker", "dialogue")}


def ratio(counts: np.ndarray) -> float:
    """The mean from counts [2]: sum and number."""
    return counts[0] / counts[1]


def test_clusters_are_speakers_else_dialogues_else_utterances():
    for known, kind, codes in (
        ({"speaker": ["b", "a", "b"], "dialogue": ["x", "y", "z"]}, "speaker", [1, 0, 1]),
        ({"speaker": ["a", "", "b"], "dialogue": ["x", "y", "y"]}, "dialogue", [0, 1, 1]),  # one has no speaker
        ({"speaker": ["a", "a", "a"], "dialogue": ["y", "y", "x"]}, "dialogue", [1, 1, 0]),  # there is only one speaker
        ({"dialogue": ["y", "", "x"]}, "utterance", [0, 1, 2]),
    ):
        found = clusters_of(identity(3, **known))
        assert (found[0], found[1].tolist()) == (kind, codes)


def test_counts_are_the_confusions_of_each_cluster_and_seed():
    label, cluster = np.array([0, 1, 1, 2]), np.array([1, 0, 1, 1])
    counts = cluster_counts(label, np.array([[0, 1, 2, 2], [1, 1, 1, 1]]), cluster, 3)
    assert counts.shape == (2, 2, 3, 3)
    assert {tuple(cell): int(counts[tuple(cell)]) for cell in np.argwhere(counts)} == {
        (0, 0, 1, 1): 1,
        (0, 1, 1, 1): 1,
        (1, 0, 0, 0): 1,
        (1, 0, 1, 2): 1,
        (1, 0, 2, 2): 1,
        (1, 1, 0, 1): 1,
        (1, 1, 1, 1): 1,
        (1, 1, 2, 1): 1,
    }


def test_with_clusters_of_one_size_the_interval_is_students_of_their_means():
    means = np.array([0.8, 0.7, 0.75, 0.9, 0.6])
    found = clustered(np.stack([40 * means, np.full(5, 40)], 1), ratio)
    expected = ttest_1samp(100 * means, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.value, found.clusters) == (pytest.approx(75), 5)


def test_with_clusters_of_unequal_size_the_deviation_is_that_of_the_cluster_bootstrap():
    rng = np.random.default_rng(0)
    size = rng.integers(20, 60, 40)
    counts = np.stack([rng.binomial(size, rng.beta(8, 3, 40)), size], 1)
    drawn = counts[rng.integers(0, 40, (20_000, 40))].sum(1)
    assert clustered(counts, ratio).std_error == pytest.approx((100 * ratio(drawn.T)).std(), rel=0.05)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_the_mean_over_seeds_and_its_jackknife_leaves_out_whole_clusters(name):
    rng = np.random.default_rng(0)
    label, cluster = rng.integers(0, 3, 90), np.arange(90) % 6
    label[cluster == 0] = 3  # only in this cluster; without it, there are three classes
    label[(cluster != 0) & (label == 3)] = 0
    prediction = np.where(rng.random((2, 90)) < 0.7, label, rng.integers(0, 4, (2, 90)))

    def mean(kept: np.ndarray) -> float:
        found = [cluster_counts(label[kept], each[None, kept], np.zeros(kept.sum(), int), 4) for each in prediction]
        return 100 * np.mean([metrics_of(counts[0, 0])[name] for counts in found])

    found = clustered(cluster_counts(label, prediction, cluster, 4), metric_over_seeds(name))
    without = np.array([mean(cluster != g) for g in range(6)])
    assert found.value == pytest.approx(mean(cluster >= 0))
    assert found.std_error == pytest.approx(np.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum()))


def test_a_difference_is_the_second_less_the_first():
    counts = np.zeros((3, 2, 1, 2, 2), int)
    counts[:, 0, 0], counts[:, 1, 0] = [[1, 1], [0, 2]], [[2, 0], [0, 2]]
    for name in ("wa", "ua"):
        found = clustered(counts, metric_over_seeds(name), (-100, 100))
        assert (found.value, found.low, found.high) == pytest.approx((25, 25, 25))


def test_two_clusters_have_no_interval():
    found = clustered(np.array([[8, 10], [5, 10]]), ratio)
    assert (found.value, found.std_error, found.low, found.high, found.clusters) == (65, None, None, None, 2)


def test_no_interval_reaches_beyond_its_limits():
    counts = np.array([[10, 10], [9, 10], [4, 10]])
    assert clustered(counts, ratio).high == 100
    assert clustered(counts * [-1, 1], ratio, (-100, 100)).low == -100
    assert clustered(counts * [-1, 1], ratio, (-100, 100)).high > 0


def test_single_utterances_are_as_many_clusters():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 3000)
    prediction = np.where(rng.random(3000) < 0.7, label, 0)
    found = clustered(cluster_counts(label, prediction[None], np.arange(3000), 4), metric_over_seeds("wa"))
    hits = prediction == label
    assert found.std_error == pytest.approx(100 * hits.std(ddof=1) / np.sqrt(3000))


def difference(total: np.ndarray) -> float:
    """B - A in accuracy, from the sums of :func:`hits`."""
    return (total[1] - total[0]) / total[2]


def hits(rng: np.random.Generator, speakers: int, truth: float) -> np.ndarray:
    """Hits of A, hits of B, and utterances of each speaker. B is better by this many points, varying by speaker."""
    size = rng.integers(30, 100, speakers)
    both, only_a = rng.uniform(0.5, 0.65, speakers), rng.uniform(0.05, 0.1, speakers)
    only_b = only_a + truth / 100 + rng.uniform(-0.05, 0.05, speakers)
    drawn = rng.multinomial(size, np.stack([both, only_a, only_b, 1 - both - only_a - only_b], 1))
    return np.stack([drawn[:, 0] + drawn[:, 1], drawn[:, 0] + drawn[:, 2], size], 1)


@pytest.mark.parametrize("speakers", [8, 10, 30])
def test_the_interval_of_a_difference_holds_the_truth_nineteen_times_of_twenty(speakers):
    rng, truth, repetitions, held = np.random.default_rng(speakers), 4.0, 4000, 0
    for _ in range(repetitions):
        found = clustered(hits(rng, speakers, truth), difference, (-100, 100))
        held += found.low < truth < found.high
    assert 0.93 < held / repetitions < 0.97  # with a standard error of 0.0034


def test_the_detectable_difference_is_shown_four_times_of_five():
    rng, speakers, repetitions = np.random.default_rng(1), 10, 2000
    spread = np.std([100 * difference(hits(rng, speakers, 6.0).sum(0)) for _ in range(repetitions)])
    truth = t.ppf([0.975, 0.8], speakers - 1).sum() * spread
    found = [clustered(hits(rng, speakers, truth), difference, (-100, 100)) for _ in range(repetitions)]
    assert 0.77 < np.mean([each.low > 0 for each in found]) < 0.83  # with a standard error of 0.009
    assert np.mean([detectable(each) for each in found]) == pytest.approx(truth, rel=0.05)


def test_without_an_interval_or_a_spread_no_difference_is_detectable():
    assert detectable(clustered(np.array([[8, 10], [5, 10]]), ratio)) is None
    assert detectable(clustered(np.array([[5, 10]] * 3), ratio)) is None


# --- swaps


def scipys(differences: np.ndarray) -> float:
    test = permutation_test((differences,), lambda x, axis: x.sum(axis), permutation_type="samples", n_resamples=np.inf)
    return test.pvalue


@pytest.mark.parametrize("clusters", [3, 5, 8, 12])
def test_the_swaps_are_scipys(clusters):
    rng = np.random.default_rng(clusters)
    for differences in (rng.normal(0.5, 1, clusters), rng.integers(-1, 3, clusters) / 7):  # the integers have ties
        found = swap_test(differences)
        assert found.p == pytest.approx(scipys(differences))
        assert (found.smallest, found.swaps, found.exact) == (2 / 2**clusters, 2**clusters, True)
    assert swap_test(np.ones(clusters)).p == found.smallest
    assert swap_test(np.zeros(clusters)).p == 1


def test_random_swaps_are_near_all_of_them_and_never_without_the_observed_one():
    differences = np.random.default_rng(0).normal(0.4, 1, 17)
    found = swap_test(differences)
    assert found == swap_test(differences)
    assert (found.swaps, found.exact, found.smallest) == (100_000, False, 2 / 2**17)
    assert found.p == pytest.approx(scipys(differences), abs=0.003)
    assert swap_test(np.ones(40)).p == swap_test(np.ones(40)).smallest == 1 / 100_001


def test_random_swaps_of_thousands_of_utterances_take_little():
    differences = np.repeat([1.0, -1.0, 0.0], [60, 40, 5000]) / 5100
    assert swap_test(differences).p == pytest.approx(0.057, abs=0.003)  # binomial: 60 or more of 100, or 40 or fewer


@pytest.mark.parametrize("speakers", [8, 10, 12])
def test_the_swaps_reject_what_is_alike_at_most_one_time_of_twenty(speakers):
    rng, repetitions, rejected = np.random.default_rng(speakers), 3000, 0
    for _ in range(repetitions):
        a, b, _ = hits(rng, speakers, 4.0).T
        rejected += swap_test((b - a) * rng.choice([-1, 1], speakers)).p <= 0.05
    assert 0.02 < rejected / repetitions < 0.06
