"""Fine-tune the upper layers of an encoder on the train split of a dataset (Section II.A of the paper).

Validation UA selects the best epoch and stops the training; the test split is never read.
"""

import argparse
import os
import re
import shlex
from dataclasses import fields, replace
from pathlib import Path

from models.config import POOLINGS
from utils.cli import add_device_option, add_option, check_above_zero
from utils.config import NAME, default_feature_dir, default_save_path
from utils.errors import InputError, run_main
from utils.finetuning.config import PRECISIONS, TuneConfig
from utils.io import check_writable, exclusive

OPTIONS = [f for f in fields(TuneConfig) if f.metadata]


def parse_args() -> tuple[argparse.Namespace, TuneConfig]:
    """The options, and the configuration without its initial encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="name of features written by extract_features.py, or any name with --metadata")
    parser.add_argument("--modality", choices=("audio", "text"), required=True, help="encoder to fine-tune")
    data = parser.add_argument_group("data")
    data.add_argument("--feature_dir", default=default_feature_dir(), help="default: $FEATURE_DIR, or feature")
    manifests = "manifests with audio_file,raw_text,label (default: those next to the features)"
    data.add_argument("--metadata", type=Path, nargs=2, metavar=("TRAIN", "VAL"), help=manifests)
    data.add_argument("--corpus_dir", type=Path, help="folder of the recordings (default: as in the manifests)")
    data.add_argument("--classes", nargs="+", help="with --metadata: classes, as in extract_features.py")
    encoder = parser.add_argument_group("encoder")
    encoder.add_argument("--model", help="folder, hub name or NAME@REVISION (default: the encoder of the features)")
    pooling = "default: that of the features, otherwise that of the model's configuration, otherwise pooler"
    encoder.add_argument("--text_pooling", choices=POOLINGS, help=pooling)
    training = parser.add_argument_group("training")
    for f in OPTIONS:
        add_option(training, f, str(f.default))
    add_device_option(training)
    training.add_argument("--precision", choices=PRECISIONS, help="default: bf16 (or fp16) on CUDA, fp32 on a CPU")
    memory = "seconds of speech per batch, padding included; a step accumulates the gradients of its batches"
    training.add_argument("--batch_seconds", type=float, help=memory)
    training.add_argument("--batch_tokens", type=int, help="tokens per batch, padding included")
    output = parser.add_argument_group("output")
    output.add_argument("--save_path", default=default_save_path(), help="root of the run folders")
    output.add_argument("--model_name", help="run folder (default: finetune-<modality> and the options given)")
    existing = output.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="resume an interrupted fine-tuning")
    existing.add_argument("--overwrite", action="store_true", help="start from scratch in an existing folder")
    args = parser.parse_args()
    check(args)
    given = {f.name: getattr(args, f.name) for f in OPTIONS if f.name in args}
    try:
        return args, TuneConfig(args.dataset, args.modality, encoder="", pooling="", **given)
    except ValueError as error:
        raise InputError(f"--{error}") from error


def check(args: argparse.Namespace) -> None:
    for option, value in (("dataset", args.dataset), ("--model_name", args.model_name)):
        if value is not None and not re.fullmatch(NAME, value):
            raise InputError(f"{option} {value}: must be a name of letters, digits and . _ - + =")
    if args.classes is not None and args.metadata is None:
        raise InputError("--classes: only with --metadata")
    for name, modality in (("text_pooling", "text"), ("batch_seconds", "audio"), ("batch_tokens", "text")):
        if getattr(args, name) is not None and args.modality != modality:
            raise InputError(f"--{name}: only with --modality {modality}")
    check_above_zero(args, "batch_seconds", "batch_tokens")


def main() -> None:
    args, config = parse_args()
    # imported here: torch and transformers take seconds to import, which --help and a wrong option do not need
    from utils.data.provenance import tuned_on
    from utils.device import describe, open_device
    from utils.finetuning.batches import load_recordings, load_transcripts
    from utils.finetuning.folder import ENCODER, finished, open_folder, run_finetuning
    from utils.finetuning.source import read_extracted, read_given
    from utils.finetuning.trainer import Trainer, pick_precision

    device = open_device(args.device, strict=True)
    config = replace(config, precision=pick_precision(args.precision, device))
    if args.metadata:
        source, known = read_given(args.metadata, args.dataset, args.modality, args.corpus_dir, args.classes or ()), {}
    else:
        source, info = read_extracted(args.feature_dir, args.dataset, args.modality, args.corpus_dir)
        known = info["encoders"][args.modality]
    if args.modality == "audio":
        encoder, description, data = load_recordings(source, args.model, known, args.batch_seconds, device)
    else:
        encoder, description, data = load_transcripts(
            source, args.model, args.text_pooling, known, args.batch_tokens, device
        )
    config = replace(config, encoder=description["weights_sha256"], pooling=description["pooling"])
    folder = Path(args.save_path) / args.dataset / (args.model_name or config.name)
    try:
        trainer = Trainer(*data, config)
    except ValueError as error:
        raise InputError(f"--unfreeze_layers {config.unfreeze_layers}: {error}") from error
    if Path(os.path.realpath(folder)) in Path(description["name"]).parents:
        raise InputError(
            f"--model {description['name']}: is inside the output folder {folder}; use another --model_name"
        )
    check_writable(folder.parent)
    count = sum(p.numel() for p in encoder.parameters())
    tuned = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    print(f"folder {folder}\ndevice {describe(device)}, training in {config.precision}")
    print(f"{args.modality} {description['name']} ({description['type']}): {tuned:,} of {count:,} weights are tuned")
    sizes = ", ".join(f"{split} {len(table)}" for split, table in source.splits.items())
    print(f"{sizes} utterances of {', '.join(source.class_names)}")
    with exclusive(folder):
        open_folder(folder, config, source, description, args.resume, args.overwrite)
        metrics = finished(folder)
        if metrics:
            print("already finished, kept")
        else:
            metrics = run_finetuning(trainer, source, tuned_on(description["name"]), folder)
    wa, ua = (100 * metrics["val"][name] for name in ("wa", "ua"))
    print(f"selected epoch {metrics['selected_epoch']}: val WA {wa:.2f}, UA {ua:.2f} percent")
    print(f"saved in {folder}: {ENCODER} (a transformers folder), metrics.json, training_curves.png")
    option = f"--{args.modality}_model {shlex.quote(str(folder / ENCODER))}"
    print(f"to extract features with it, add to your command: {option} --dataset {args.dataset}_tuned")


if __name__ == "__main__":
    run_main(main)
