"""Cross-validate the choices that the paper leaves open, on train + val alone; the test file is not opened.

    python -m benchmarks.cross_validate --feature_dir ../shared/data/iemocap_small --dataset IEMOCAP

Each variant is trained on 4 of 5 stratified folds and scored on the fifth at every epoch, for each partition. The
table gives the mean over folds: an epoch is read at the same place in every fold, never picked fold by fold.
Finished folds are kept in --out, so that an interrupted command goes on.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from tqdm import tqdm

from utils.config import Config, default_feature_dir, feature_path, make_config
from utils.engine import build_model, fit, start_training
from utils.errors import run_main
from utils.features import Features, load_splits
from utils.graph_data import prepare
from utils.report import align
from utils.runs import atomic_write, set_seed

FOLDS = 5
EPOCHS = 100
VARIANTS = {
    "profile paper": {},
    "lr_decay 0.9": {"lr_decay": 0.9},
    "label_smoothing 0": {"label_smoothing": 0.0},
    "dropout 0.5": {"dropout": 0.5},
    "dropout 0.1": {"dropout": 0.1},
    "gat_norm batch": {"gat_norm": "batch"},
    "gat_layer_scale 0 (no gate)": {"gat_layer_scale": 0.0},
    "gat_layer_scale 0.03": {"gat_layer_scale": 0.03},
    "gat_residual middle, no gate": {"gat_residual": "middle", "gat_layer_scale": 0.0},
    "no_chgat": {"ablation": "no_chgat"},
    "no_xcbam": {"ablation": "no_xcbam"},
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


def run_fold(config: Config, features: Features, partition: int, fold: int) -> list[list[float]]:
    """WA, UA and w-F1 of the held-out fold at every epoch."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=partition).split(features.text, features.label)
    train, held_out = (prepare(rows_of(features, rows), config, torch.device("cpu")) for rows in list(folds)[fold])
    set_seed(100 * partition + fold)
    model = build_model(config, *features.dims, int(features.label.max()) + 1)
    curve = []
    fit(
        start_training(model, config),
        train,
        held_out,
        config,
        lambda line: curve.append([line["val_wa"], line["val_ua"], line["val_w_f1"]]),
    )
    return curve


def read_done(path: Path) -> dict[tuple, list]:
    """Curves of finished folds; a line that a kill cut short is taken away, and its fold trained again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = (
        [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []
    )
    atomic_write(path, "".join(whole).encode())
    return {(data, config, partition, fold): curve for data, config, partition, fold, curve in map(json.loads, whole)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="IEMOCAP")
    parser.add_argument("--feature_dir", default=default_feature_dir())
    parser.add_argument("--partitions", type=int, default=2, help="5-fold partitions")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("checkpoints/cross_validation.jsonl"))
    args = parser.parse_args()
    features = pooled(args.dataset, args.feature_dir)

    variants = dict.fromkeys(["profile paper", *args.variants])  # the first is what the others are compared with
    data = f"{args.dataset} {features.sha256}"
    done = read_done(args.out)
    curves = {name: [] for name in variants}
    jobs = [(v, p, f) for p in range(args.partitions) for v in variants for f in range(FOLDS)]
    for name, partition, fold in tqdm(jobs, unit="fold"):
        config = make_config({"dataset": args.dataset, "epochs": EPOCHS, **VARIANTS[name]})
        key = (data, repr(config), partition, fold)
        if key not in done:
            done[key] = run_fold(config, features, partition, fold)
            with args.out.open("a") as file:
                file.write(json.dumps([*key, done[key]]) + "\n")
        curves[name].append(done[key])

    rows = [("variant", "WA at 30", "60", "100", "UA at 100", "w-F1 at 100", "± s.e.", "WA - paper's at 100")]
    base = np.array(curves["profile paper"])[:, EPOCHS - 1, 0]
    for name, of_variant in curves.items():
        c = 100 * np.array(of_variant)  # [folds, epochs, 3]
        difference = c[:, EPOCHS - 1, 0] - 100 * base
        error = [x.std(ddof=1) / len(x) ** 0.5 for x in (c[:, EPOCHS - 1, 0], difference)]
        rows.append(
            (
                name,
                *(f"{c[:, epoch - 1, 0].mean():.1f}" for epoch in (30, 60, EPOCHS)),
                f"{c[:, EPOCHS - 1, 1].mean():.1f}",
                f"{c[:, EPOCHS - 1, 2].mean():.1f}",
                f"{error[0]:.1f}",
                f"{difference.mean():+.1f} ± {error[1]:.1f}",
            )
        )
    print(f"{args.dataset}: {len(features)} utterances of train + val, {args.partitions} x {FOLDS} folds (percent)")
    print("\n".join(align(rows)))


if __name__ == "__main__":
    run_main(main)
