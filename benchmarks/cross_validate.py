"""Cross-validate the choices of profile refined on train + val; the test file is not opened.

    python -m benchmarks.cross_validate --feature_dir ../shared/data/iemocap_small --dataset IEMOCAP

Each variant is trained on 4 of 5 stratified folds and scored on the fifth after every epoch. The first table gives the
mean over folds at fixed epochs, never selected per fold. The second compares rules that select the epoch: each selects
on one half of the fifth fold and is scored on the other half. The learning rate of profile official decays when the
loss of the fifth fold stalls, which favours it, if anything. Finished folds are kept in --out; the same command
resumes.
"""

import argparse
import json
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from tqdm import tqdm

from models.cemobam import CemoBAM
from utils.config import Config, default_feature_dir, feature_path, make_config
from utils.data.features import Features, load_splits
from utils.device import seed_everything
from utils.errors import run_main
from utils.io import align, atomic_write
from utils.training.graph import prepare
from utils.training.loop import fit, predict, start_training
from utils.training.metrics import REPORTED, compute_metrics

FOLDS = 5
EPOCHS = 100
HALVINGS = 5
MOMENTUM = 0.9
VARIANTS = {
    "profile refined": {},
    "lr_decay 0.9": {"lr_decay": 0.9},
    "label_smoothing 0": {"label_smoothing": 0.0},
    "dropout 0.5": {"dropout": 0.5},
    "dropout 0.1": {"dropout": 0.1},
    "gat_norm batch": {"gat_norm": "batch"},
    "gat_layer_scale 0 (no LayerScale)": {"gat_layer_scale": 0.0},
    "gat_layer_scale 0.03": {"gat_layer_scale": 0.03},
    "gat_residual middle, no LayerScale": {"gat_residual": "middle", "gat_layer_scale": 0.0},
    "no_chgat": {"ablation": "no_chgat"},
    "no_xcbam": {"ablation": "no_xcbam"},
    "profile paper": {"profile": "paper"},
    "profile official": {"profile": "official"},
}


def pooled(dataset: str, feature_dir: str) -> Features:
    paths = {split: feature_path(feature_dir, dataset, split) for split in ("train", "val")}
    splits, _ = load_splits(paths, None)
    train, val = splits["train"], splits["val"]
    return replace(
        train,
        sha256=train.sha256 + val.sha256,
        **{name: torch.cat([getattr(train, name), getattr(val, name)]) for name in ("text", "audio", "label")},
    )


def rows_of(features: Features, rows: np.ndarray) -> Features:
    return replace(features, text=features.text[rows], audio=features.audio[rows], label=features.label[rows])


def fold_rows(features: Features, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """The utterances to train on, and those held out."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features.text, features.label)
    return list(folds)[fold]


def run_fold(config: Config, features: Features, fold: int) -> list[list[int]]:
    """Predicted classes of the held-out fold after every epoch, [epochs, N]."""
    parts = (rows_of(features, rows) for rows in fold_rows(features, fold))
    train, held_out = (prepare(part, config, torch.device("cpu")) for part in parts)
    seed_everything(fold)
    state = start_training(CemoBAM(config.model, *features.dims, int(features.label.max()) + 1), config)
    predictions = []

    def remember(line: dict) -> None:
        predictions.append(predict(state.model, held_out).argmax(1).tolist())

    fit(state, train, held_out, config, remember)
    return predictions


def scores(predictions: np.ndarray, label: np.ndarray) -> np.ndarray:
    """WA, UA and w-F1 of every epoch in percent, [epochs, 3]."""
    classes = int(max(label.max(), predictions.max())) + 1
    label = torch.from_numpy(label)
    metrics = [compute_metrics(label, torch.from_numpy(of_epoch), classes) for of_epoch in predictions]
    return 100 * np.array([[each[name] for name in REPORTED] for each in metrics])


def smoothed(curve: np.ndarray) -> list[float]:
    """Moving average over about ten epochs."""
    return list(accumulate(curve, lambda average, score: MOMENTUM * average + (1 - MOMENTUM) * score))


RULES = {
    "best_val_wf1": lambda curve: int(curve.argmax()),
    "moving average": lambda curve: int(np.argmax(smoothed(curve))),
    "last": lambda curve: len(curve) - 1,
}


def scores_of_rules(predictions: np.ndarray, label: np.ndarray) -> list[float]:
    """WA of the epoch that each rule selects on one half of the utterances, on the other; mean over random halves."""
    rng, found = np.random.default_rng(0), []
    for _ in range(HALVINGS):
        halves = np.array_split(rng.permutation(len(label)), 2)
        for choosing, scoring in (halves, halves[::-1]):
            curve = scores(predictions[:, choosing], label[choosing])[:, 2]
            epochs = [rule(curve) for rule in RULES.values()]
            found.append([100 * (predictions[epoch, scoring] == label[scoring]).mean() for epoch in epochs])
    return np.mean(found, axis=0).tolist()


def read_done(path: Path) -> dict[tuple, list]:
    """Predictions of finished folds; a line that a kill truncated is removed, and its fold trained again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = (
        [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []
    )
    atomic_write(path, "".join(whole).encode())
    return {tuple(key): predictions for *key, predictions in map(json.loads, whole)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="IEMOCAP")
    parser.add_argument("--feature_dir", default=default_feature_dir())
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("checkpoints/cross_validation.jsonl"))
    args = parser.parse_args()
    features = pooled(args.dataset, args.feature_dir)

    variants = dict.fromkeys(["profile refined", *args.variants])  # the first is the reference of the others
    data = f"{args.dataset} {features.sha256}"
    done = read_done(args.out)
    folds = {name: [] for name in variants}  # by variant: predictions and labels of each fold
    for name, fold in tqdm([(name, fold) for name in variants for fold in range(FOLDS)], unit="fold"):
        config = make_config({"dataset": args.dataset, "profile": "refined", "epochs": EPOCHS, **VARIANTS[name]})
        key = (data, repr(config), fold)
        if key not in done:
            done[key] = run_fold(config, features, fold)
            with args.out.open("a") as file:
                file.write(json.dumps([*key, done[key]]) + "\n")
        held_out = fold_rows(features, fold)[1]
        folds[name].append((np.array(done[key]), features.label.numpy()[held_out]))

    print(f"{args.dataset}: {len(features)} utterances of train + val, {FOLDS} folds (percent)")
    print("\n".join(align(variant_rows(folds))))
    print("\nWA of the epoch that a rule selects on one half of a fold, on the other half")
    print("\n".join(align(rule_rows(folds))))


def variant_rows(folds: dict[str, list]) -> list[tuple[str, ...]]:
    rows = [("variant", "WA at 30", "60", "100", "UA at 100", "w-F1 at 100", "± s.e.", "WA - refined at 100")]
    curves = {name: np.array([scores(*fold) for fold in of_variant]) for name, of_variant in folds.items()}
    for name, curve in curves.items():  # [folds, epochs, 3]
        at_end = curve[:, EPOCHS - 1]
        difference = at_end[:, 0] - curves["profile refined"][:, EPOCHS - 1, 0]
        error = [x.std(ddof=1) / len(x) ** 0.5 for x in (at_end[:, 0], difference)]
        was = (f"{curve[:, epoch - 1, 0].mean():.1f}" for epoch in (30, 60, EPOCHS))
        others = (f"{at_end[:, i].mean():.1f}" for i in (1, 2))
        rows.append((name, *was, *others, f"{error[0]:.1f}", f"{difference.mean():+.1f} ± {error[1]:.1f}"))
    return rows


def rule_rows(folds: dict[str, list]) -> list[tuple[str, ...]]:
    rows = [("variant", *RULES, "moving average - best")]
    for name, of_variant in folds.items():
        of_rules = np.array([scores_of_rules(*fold) for fold in of_variant])  # [folds, rules]
        gain = of_rules[:, 1] - of_rules[:, 0]
        error = gain.std(ddof=1) / len(gain) ** 0.5
        rows.append((name, *(f"{wa:.1f}" for wa in of_rules.mean(0)), f"{gain.mean():+.1f} ± {error:.1f}"))
    return rows


if __name__ == "__main__":
    run_main(main)
