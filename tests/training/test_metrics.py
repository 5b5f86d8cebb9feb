import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from utils.training.metrics import compute_metrics, mean_and_std

TRUE = [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]
PREDICTED = [0, 0, 0, 0, 0, 1, 1, 0, 2, 0]


def test_by_hand():
    m = compute_metrics(torch.tensor(TRUE), torch.tensor(PREDICTED), 3)
    assert m["wa"] == pytest.approx(7 / 10)  # correct of all
    assert m["recall"] == pytest.approx([5 / 6, 1 / 2, 1 / 2])
    assert m["ua"] == pytest.approx((5 / 6 + 1 / 2 + 1 / 2) / 3)
    f1 = [2 * 5 / (6 + 7), 2 * 1 / (2 + 2), 2 * 1 / (2 + 1)]
    assert m["w_f1"] == pytest.approx((6 * f1[0] + 2 * f1[1] + 2 * f1[2]) / 10)
    assert m["macro_f1"] == pytest.approx(sum(f1) / 3)
    assert m["confusion"] == [[5, 1, 0], [1, 1, 0], [1, 0, 1]]


def test_a_class_that_does_not_occur_is_not_counted(recwarn):
    m = compute_metrics(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 2]), 3)
    assert m["recall"] == [0.5, None, 1.0]
    assert m["ua"] == pytest.approx(0.75)
    assert not recwarn.list


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_equal_to_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, 5, 60), rng.choice([0, 1, 2, 3, 6], 60)  # of 8: some in neither, some in one
    m = compute_metrics(torch.from_numpy(true), torch.from_numpy(predicted), 8)
    assert m["wa"] == pytest.approx(accuracy_score(true, predicted))
    assert m["ua"] == pytest.approx(balanced_accuracy_score(true, predicted))
    for kind, name in (("weighted", "w_f1"), ("macro", "macro_f1")):
        assert m[name] == pytest.approx(f1_score(true, predicted, average=kind, zero_division=0))
    assert m["confusion"] == confusion_matrix(true, predicted, labels=range(8)).tolist()


def test_mean_and_sample_deviation():
    names = ("wa", "ua", "w_f1", "macro_f1")
    mean, std = mean_and_std([dict.fromkeys(names, v) for v in (0.5, 0.7)])
    assert mean == pytest.approx(dict.fromkeys(names, 0.6))
    assert std == pytest.approx(dict.fromkeys(names, 0.02**0.5))  # divided by n - 1
    assert mean_and_std([dict.fromkeys(names, 0.5)])[1] is None
