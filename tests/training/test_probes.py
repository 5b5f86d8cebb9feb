"""Probes: fitted on train, chosen on validation, tested once."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from utils.training.predictions import read_predictions
from utils.training.probes import LINEAR, PROBES, fit_probe


def test_logistic_regression_is_the_best_penalty_on_validation(toy_splits):
    found, choice = LINEAR.fit(toy_splits, 4, 0)
    values = {split: torch.cat([each.text, each.audio], 1).double() for split, each in toy_splits.items()}
    scaler = StandardScaler().fit(values["train"])
    losses = {}
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        model = LogisticRegression(C=penalty, max_iter=1000).fit(
            scaler.transform(values["train"]), toy_splits["train"].label
        )
        of_val = model.predict_log_proba(scaler.transform(values["val"]))
        losses[f"C = {penalty:g}"] = -of_val[np.arange(24), toy_splits["val"].label].mean()
        if choice == f"C = {penalty:g}":
            assert np.allclose(found["test"], model.predict_proba(scaler.transform(values["test"])), atol=1e-3)
    assert choice == min(losses, key=losses.get)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_probe_never_sees_the_test_labels(toy_splits, probe):
    other = dataclasses.replace(toy_splits["test"], label=toy_splits["test"].label.flip(0))
    found, other = (probe.fit({**toy_splits, "test": test}, 4, 1)[0] for test in (toy_splits["test"], other))
    assert np.array_equal(found["test"], other["test"])
    assert found["test"].shape == (24, 4)
    assert np.allclose(found["test"].sum(1), 1)


def test_a_probe_of_one_modality_sees_that_alone(toy_splits):
    other = {s: dataclasses.replace(each, audio=torch.randn_like(each.audio)) for s, each in toy_splits.items()}
    for probe in PROBES:
        found, changed = (probe.fit(splits, 4, 1)[0]["test"] for splits in (toy_splits, other))
        assert np.array_equal(found, changed) == (probe.name == "linear-text")


def test_a_class_that_train_lacks_has_probability_0(toy_splits):
    train = toy_splits["train"]
    rows = train.label != 3
    without = dataclasses.replace(train, **{name: getattr(train, name)[rows] for name in ("text", "audio", "label")})
    for probe in PROBES:
        found = probe.fit({**toy_splits, "train": without}, 4, 1)[0]["test"]
        assert (found[:, 3] == 0).all()


def test_a_fitted_probe_is_kept_until_the_embeddings_change(toy_data, tmp_path):
    first = fit_probe(LINEAR, toy_data, 0, tmp_path)
    path = tmp_path / "test_predictions.csv"
    found = read_predictions([path])
    assert (found.prediction[0] == found.label).mean() == first["test"]["wa"]
    assert {p.name for p in tmp_path.iterdir()} >= {"probe.json", "val_predictions.csv"}
    before = path.stat().st_mtime_ns
    assert fit_probe(LINEAR, toy_data, 0, tmp_path) == first
    assert path.stat().st_mtime_ns == before
    changed = {**toy_data.splits, "test": dataclasses.replace(toy_data.splits["test"], sha256="other")}
    fit_probe(LINEAR, dataclasses.replace(toy_data, splits=changed), 0, tmp_path)
    assert path.stat().st_mtime_ns > before
