"""Tune the upper layers of one encoder on the train split of a dataset (II.A); val stops it, test is never read."""

import argparse
import math
import re
import shlex
from dataclasses import fields
from pathlib import Path

import torch

from models.encoders import POOLINGS, AudioEncoder, TextEncoder
from utils.cli import add_device_option, check_above_zero
from utils.config import NAME, default_feature_dir, default_save_path
from utils.device import describe, pick_device, set_matmul_precision
from utils.errors import InputError, run_main
from utils.extraction.encoding import BATCH_SECONDS, BATCH_TOKENS
from utils.extraction.hub import AUDIO_MODEL, TEXT_MODEL, load_audio_encoder, load_text_encoder
from utils.feature_info import encoder_name
from utils.files import check_writable
from utils.finetuning.batches import Recordings, Transcripts
from utils.finetuning.folder import ENCODER, finished, open_folder, run_finetuning
from utils.finetuning.objectives import OBJECTIVES
from utils.finetuning.provenance import tuned_on
from utils.finetuning.source import Source, read_extracted, read_metadata_files
from utils.finetuning.trainer import PRECISIONS, Trainer, TuneConfig
from utils.runs import set_seed

DEFAULTS = {"audio": AUDIO_MODEL, "text": TEXT_MODEL}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("dataset", help="features that extract_features.py made, or any name with --metadata")
    parser.add_argument("--modality", choices=("audio", "text"), required=True)
    data = parser.add_argument_group("data")
    data.add_argument("--feature_dir", default=default_feature_dir(), help="default: $FEATURE_DIR, or feature")
    data.add_argument(
        "--metadata",
        type=Path,
        nargs=2,
        metavar=("TRAIN", "VAL"),
        help="CSVs with audio_file,raw_text,label (default: those beside the features)",
    )
    data.add_argument("--corpus_dir", type=Path, help="folder of the recordings (default: where the CSVs say)")
    data.add_argument("--classes", nargs="+", help="with --metadata: as in extract_features.py")
    encoder = parser.add_argument_group("encoder")
    encoder.add_argument("--model", help="folder, hub name or NAME@REVISION (default: the one of the features)")
    encoder.add_argument("--text_pooling", choices=POOLINGS, help="default: that of the features, else pooler")
    encoder.add_argument("--unfreeze_layers", type=int, default=TuneConfig.unfreeze_layers, help="upper layers to tune")
    training = parser.add_argument_group("training")
    training.add_argument("--objective", choices=OBJECTIVES, default=TuneConfig.objective)
    training.add_argument("--epochs", type=int, default=TuneConfig.epochs, help="at most")
    training.add_argument("--patience", type=int, default=TuneConfig.patience, help="epochs without a better val UA")
    training.add_argument("--batch_size", type=int, default=TuneConfig.batch_size, help="utterances a step")
    training.add_argument("--lr", type=float, default=TuneConfig.lr, help="of the encoder")
    training.add_argument("--head_lr", type=float, default=TuneConfig.head_lr, help="of the classifier trained along")
    training.add_argument("--weight_decay", type=float, default=TuneConfig.weight_decay)
    training.add_argument("--seed", type=int, default=TuneConfig.seed)
    add_device_option(training)
    training.add_argument("--precision", choices=PRECISIONS, help="default: bf16 (or fp16) on CUDA, fp32 on a CPU")
    memory = "memory: a step is cut into batches of so much, their gradients are added (as in extract_features.py)"
    training.add_argument("--batch_seconds", type=float, help=memory)
    training.add_argument("--batch_tokens", type=int, help="likewise")
    output = parser.add_argument_group("output")
    output.add_argument("--save_path", default=default_save_path(), help="root of the run folders")
    output.add_argument("--model_name", help="folder in it (default: finetune-<modality>, and what is no default)")
    existing = output.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with an interrupted fine-tuning")
    existing.add_argument("--overwrite", action="store_true", help="tune again where the folder exists")
    args = parser.parse_args()
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    for option, value in (("dataset", args.dataset), ("--model_name", args.model_name)):
        if value is not None and not re.fullmatch(NAME, value):
            raise InputError(f"{option} {value}: a name of letters, digits and . _ - + =")
    if args.classes is not None and args.metadata is None:
        raise InputError("--classes: only with --metadata")
    if args.text_pooling is not None and args.modality == "audio":
        raise InputError("--text_pooling: only with --modality text")
    for option in ("unfreeze_layers", "epochs", "patience", "batch_size"):
        if getattr(args, option) < 1:
            raise InputError(f"--{option} {getattr(args, option)}: must be at least 1")
    if args.objective == "ntxent" and args.batch_size < 2:
        raise InputError("--batch_size 1: with ntxent at least 2, to be told apart")
    check_above_zero(args, "lr", "head_lr", "batch_seconds", "batch_tokens")
    if not 0 <= args.weight_decay < math.inf:
        raise InputError(f"--weight_decay {args.weight_decay}: must not be negative")
    if not 0 <= args.seed < 2**63:
        raise InputError(f"--seed {args.seed}: must be from 0 to 2^63 - 1")


def pick_precision(given: str | None, device: torch.device) -> str:
    if device.type == "cuda":
        return given or ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16")
    if given == "fp16":
        raise InputError("--precision fp16: only a CUDA device has it; a CPU has fp32 and bf16")
    return given or "fp32"


def read_source(args: argparse.Namespace) -> tuple[Source, dict]:
    """The utterances, and what the features' JSON says of this modality's encoder ({} where there is none)."""
    if args.metadata:
        return read_metadata_files(args.metadata, args.dataset, args.modality, args.corpus_dir, args.classes or ()), {}
    source, info = read_extracted(args.feature_dir, args.dataset, args.modality, args.corpus_dir)
    return source, info["encoders"][args.modality]


def load_encoder(
    args: argparse.Namespace, known: dict, device: torch.device
) -> tuple[TextEncoder | AudioEncoder, dict]:
    """The encoder to begin with, and its description."""
    name = args.model or (encoder_name(known) if known else DEFAULTS[args.modality])
    if args.modality == "audio":
        return load_audio_encoder(name, device, "--model")
    return load_text_encoder(name, args.text_pooling or known.get("pooling", "pooler"), device, "--model")


def default_name(config: TuneConfig) -> str:
    """``finetune-audio``, and every option that is not its default."""
    plain = TuneConfig(config.dataset, config.modality, config.encoder, config.pooling, precision=config.precision)
    given = [f"{k}={v}" for k, v in vars(config).items() if v != getattr(plain, k)]
    return "-".join([f"finetune-{config.modality}", *given])


def main() -> None:
    args = parse_args()
    device = pick_device(args.device)
    set_matmul_precision("fp32", device)
    precision = pick_precision(args.precision, device)
    source, known = read_source(args)
    encoder, description = load_encoder(args, known, device)
    found = {"encoder": description["weights_sha256"], "pooling": description["pooling"], "precision": precision}
    config = TuneConfig(**found, **{f.name: getattr(args, f.name) for f in fields(TuneConfig) if f.name not in found})
    folder = Path(args.save_path) / args.dataset / (args.model_name or default_name(config))
    set_seed(config.seed)
    try:
        trainer = Trainer(encoder, len(source.class_names), config)
    except ValueError as error:
        raise InputError(f"--unfreeze_layers {args.unfreeze_layers}: {error}") from error
    if folder.resolve() in Path(description["name"]).parents:
        raise InputError(f"--model {description['name']}: lies in {folder}, where this goes; give another --model_name")
    check_writable(folder.parent)
    open_folder(folder, config, source, description, args.resume, args.overwrite)

    whole = sum(p.numel() for p in encoder.parameters())
    tuned = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    print(f"folder {folder}\ndevice {describe(device)}, training in {precision}")
    print(f"{args.modality} {description['name']} ({description['type']}): {tuned:,} of {whole:,} weights are tuned")
    sizes = ", ".join(f"{split} {len(table)}" for split, table in source.splits.items())
    print(f"{sizes} utterances of {', '.join(source.class_names)}")
    metrics = finished(folder)
    if metrics:
        print("finished before, kept")
    else:
        train, val = (data_of(args, encoder, source, split, device) for split in ("train", "val"))
        metrics = run_finetuning(trainer, train, val, source, tuned_on(description["name"]), folder)
    print(
        f"chosen epoch {metrics['selected_epoch']}: val WA {100 * metrics['val']['wa']:.2f}, "
        f"UA {100 * metrics['val']['ua']:.2f} percent"
    )
    print(f"saved in {folder}: {ENCODER} (a folder of transformers), metrics.json, training_curves.png")
    option = f"--{args.modality}_model {shlex.quote(str(folder / ENCODER))}"
    print(f"extract with: your extract_features.py command and {option} --dataset {args.dataset}_tuned")


def data_of(
    args: argparse.Namespace, encoder: TextEncoder | AudioEncoder, source: Source, split: str, device: torch.device
) -> Recordings | Transcripts:
    if args.modality == "audio":
        budget = args.batch_seconds or BATCH_SECONDS[device.type]
        return Recordings(encoder, source.splits[split], source.recordings, budget)
    return Transcripts(encoder, source.splits[split], args.batch_tokens or BATCH_TOKENS[device.type])


if __name__ == "__main__":
    run_main(main)
