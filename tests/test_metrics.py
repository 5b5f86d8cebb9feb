import pytest

from utils.metrics import compute_metrics, mean_and_std

TRUE = [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]
PREDICTED = [0, 0, 0, 0, 0, 1, 1, 0, 2, 0]


def test_by_hand():
    m = compute_metrics(TRUE, PREDICTED, 3)
    assert m["wa"] == pytest.approx(7 / 10)  # correct of all
    assert m["recall"] == pytest.approx([5 / 6, 1 / 2, 1 / 2])
    assert m["ua"] == pytest.approx((5 / 6 + 1 / 2 + 1 / 2) / 3)
    f1 = [2 * 5 / (6 + 7), 2 * 1 / (2 + 2), 2 * 1 / (2 + 1)]
    assert m["w_f1"] == pytest.approx((6 * f1[0] + 2 * f1[1] + 2 * f1[2]) / 10)
    assert m["macro_f1"] == pytest.approx(sum(f1) / 3)
    assert m["confusion"] == [[5, 1, 0], [1, 1, 0], [1, 0, 1]]


def test_a_class_that_does_not_occur_is_not_counted(recwarn):
    m = compute_metrics([0, 0, 2], [0, 1, 2], 3)
    assert m["recall"] == [0.5, None, 1.0]
    assert m["ua"] == pytest.approx(0.75)
    assert not recwarn.list


def test_mean_and_sample_deviation():
    names = ("wa", "ua", "w_f1", "macro_f1")
    mean, std = mean_and_std([dict.fromkeys(names, v) for v in (0.5, 0.7)])
    assert mean == pytest.approx(dict.fromkeys(names, 0.6))
    assert std == pytest.approx(dict.fromkeys(names, 0.02**0.5))  # divided by n - 1
    assert mean_and_std([dict.fromkeys(names, 0.5)])[1] is None
