"""Print the validation WA of variants of profile refined, which selected its settings. Test parts are not read.

    python -m benchmarks.refined IEMOCAP551 --feature_dir ../shared/data/iemocap_551

Each variant is trained on every fold (by session, otherwise by speaker). After each epoch, it is scored on the
validation part inside the training folds. The table has the WA of all validation utterances at some epochs, averaged
over the seeds, and the WA of the logistic regression whose penalty they select. An utterance that validates one fold is
tested in another, so a choice among many variants still slightly overestimates the test results. Finished runs are
kept. The same command resumes.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.graph import validation_wa
from utils.cli import add_device_option, add_feature_options, add_jobs_option
from utils.config import Config, default_save_path, make_config
from utils.device import open_device
from utils.errors import run_main
from utils.folds.protocol import VAL, Protocol, choose_by, divide, read_pool
from utils.folds.run import Row
from utils.io import align
from utils.training.folder import read_curves
from utils.training.jobs import train_here
from utils.training.probes import LINEAR, fit_probe
from utils.training.run import Progress, open_runs

VARIANTS = {
    "refined": {},
    "width 128": {"hidden_dim": 128},
    "width 512": {"hidden_dim": 512},
    "weight decay 0.01": {"weight_decay": 0.01},
    "decay factor 0.5": {"lr_decay": 0.5},
    "dropout 0.5": {"dropout": 0.5},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "no LayerScale": {"gat_layer_scale": 0.0},
    "one BatchNorm per layer": {"gat_norm": "batch"},
    "residuals of the middle layers": {"gat_residual": "middle"},
    "without CH-GAT": {"ablation": "no_chgat"},
}
SHOWN = (10, 20, 30, 40, 50, 60, 80, 100, 150, 200)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 123])
    add_feature_options(parser)
    add_device_option(parser)
    add_jobs_option(parser)
    args = parser.parse_args()
    pool = read_pool(args.dataset, Path(args.feature_dir))
    root = Path(default_save_path()) / args.dataset / "refined-variants"
    protocol = divide(pool, root, choose_by(pool), "group")
    base = make_config({"dataset": args.dataset, "profile": "refined"})
    configs = {name: base.replace(**VARIANTS[name]) for name in args.variants}
    runs = [run for name, config in configs.items() for run in Row(name, config).runs(protocol, args.seeds)]
    open_runs(runs)
    with Progress(runs) as progress:
        train_here(runs, progress, open_device(args.device), args.jobs)
    rows = [("val WA (%) at epoch", *map(str, SHOWN), "selected")]
    rows += [(name, *curve(protocol, name, config, args.seeds)) for name, config in configs.items()]
    print("\n".join(align(rows)))
    linear = Row(LINEAR.title, LINEAR).folder(protocol)
    hits = [
        len(protocol.rows(fold, VAL)) * fit_probe(LINEAR, protocol.data[fold], 0, linear / f"fold{fold}")["val"]["wa"]
        for fold in protocol.folds
    ]
    print(f"{LINEAR.title}: {100 * sum(hits) / len(pool.features):.1f}")
    return 0


def curve(protocol: Protocol, name: str, config: Config, seeds: list[int]) -> list[str]:
    """WA of all validation utterances at the epochs SHOWN and at the selected one, averaged over the seeds."""
    sizes = {fold: len(protocol.rows(fold, VAL)) for fold in protocol.folds}
    row, hits = Row(name, config), np.zeros(config.epochs)
    for run in row.runs(protocol, seeds):
        size = sizes[int(run.trial.folder.name.removeprefix("fold"))] / len(seeds)
        hits += size * np.array([line["val_wa"] for line in read_curves(run.folder, config.epochs)])
    wa = 100 * hits / sum(sizes.values())
    shown = [f"{wa[epoch - 1]:.1f}" if epoch <= config.epochs else "" for epoch in SHOWN]
    return [*shown, f"{100 * validation_wa(protocol, row, seeds):.1f}"]


if __name__ == "__main__":
    run_main(main)
