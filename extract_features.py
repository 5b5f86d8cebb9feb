"""Convert a corpus or a manifest to feature pickles: BERT for transcripts, Wav2Vec2 for recordings (Section II.A)."""

import argparse
import os
import re
import shlex
from pathlib import Path

from models.config import POOLINGS
from utils.cli import add_device_option, check_above_zero
from utils.config import NAME, ROOT, SPLITS, default_feature_dir
from utils.data.config import FEWEST_GROUPS, KINDS, MOST_FOLDS, SEED
from utils.data.corpora import CORPORA
from utils.errors import InputError, run_main
from utils.extraction.config import AUDIO_MODEL, BATCH_SECONDS, BATCH_TOKENS, TEXT_MODEL
from utils.io import exclusive
from utils.transcription.config import add_transcribe_options, check_transcripts


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("corpus", help=f"{', '.join(CORPORA)}, or any name together with --metadata")
    data = parser.add_argument_group("data")
    data.add_argument("--corpus_dir", type=Path, help="folder that contains the recordings")
    manifest = (
        "CSV with the columns audio_file,raw_text,label (optional: speaker,session,dialogue,gender,split), or a .jsonl "
        "of EmoBox; give one file, or three for train, val and test"
    )
    data.add_argument("--metadata", type=Path, nargs="+", default=[], metavar="FILE", help=manifest)
    classes = "class names in the order of labels 0, 1, ...; NAME=A+B merges emotions; other emotions are excluded"
    data.add_argument("--classes", nargs="+", help=classes)
    data.add_argument("--allow_partial", action="store_true", help="accept an incomplete corpus")
    data.add_argument("--skip_bad", action="store_true", help="skip bad recordings and list them in a report")
    split = parser.add_argument_group("split")
    kind = (
        "how to split (default: official if the manifest has a split; otherwise by session or speaker if every "
        f"utterance names its speaker and there are at least {FEWEST_GROUPS} speakers; otherwise random)"
    )
    split.add_argument("--split", choices=KINDS, help=kind)
    split.add_argument("--fold", type=int, help="test fold of a session or speaker split, counted from 1 (default: 1)")
    folds = (
        "number of folds of a session or speaker split (default: one per session or speaker; without --split, at most "
        f"{MOST_FOLDS})"
    )
    split.add_argument("--folds", type=int, help=folds)
    split.add_argument("--seed", type=int, help=f"seed of a random split (default: {SEED})")
    encoders = parser.add_argument_group("encoders")
    encoders.add_argument(
        "--text_model", default=TEXT_MODEL, help=f"folder, hub name or NAME@REVISION (default: {TEXT_MODEL})"
    )
    pooling = "how to pool tokens (default: from the configuration of a sentence-transformers model, otherwise pooler)"
    encoders.add_argument("--text_pooling", choices=POOLINGS, help=pooling)
    encoders.add_argument(
        "--audio_model", default=AUDIO_MODEL, help=f"folder, hub name or NAME@REVISION (default: {AUDIO_MODEL})"
    )
    add_device_option(encoders)
    default = ", ".join(f"{seconds:g} on {device}" for device, seconds in BATCH_SECONDS.items())
    tokens = ", ".join(f"{count} on {device}" for device, count in BATCH_TOKENS.items())
    seconds = f"seconds of speech per batch, including padding (default: {default})"
    encoders.add_argument("--batch_seconds", type=float, help=seconds)
    encoders.add_argument("--batch_tokens", type=int, help=f"tokens per batch, including padding (default: {tokens})")
    add_transcribe_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--dataset", help="name of the features (default: the name of the corpus)")
    output.add_argument(
        "--feature_dir", default=default_feature_dir(), help="output folder (default: $FEATURE_DIR, or feature)"
    )
    cache = os.path.relpath(ROOT / "feature" / "cache")
    output.add_argument(
        "--cache_dir", type=Path, default=cache, help="folder of cached embeddings, for resuming (default: %(default)s)"
    )
    output.add_argument("--overwrite", action="store_true", help="replace existing features of the same name")
    args = parser.parse_args()
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    if args.dataset is None and not re.fullmatch(NAME, args.corpus):
        raise InputError(f"{args.corpus}: must consist of letters, digits and . _ - + =")
    if args.allow_partial and args.metadata:
        raise InputError("--allow_partial: only without --metadata, because manifests have no expected size")
    args.dataset = args.dataset or args.corpus
    if not re.fullmatch(NAME, args.dataset) or args.dataset == "DEMO":
        raise InputError(
            f"--dataset {args.dataset}: must consist of letters, digits and . _ - + =, and must not be DEMO"
        )
    if len(args.metadata) not in (0, 1, len(SPLITS)):
        raise InputError(
            f"--metadata: {len(args.metadata)} files given; expected one, or one each for {', '.join(SPLITS)}"
        )
    check_transcripts(args)
    check_above_zero(args, "batch_seconds", "batch_tokens")
    if args.seed is not None and not 0 <= args.seed < 2**32:
        raise InputError(f"--seed {args.seed}: must be from 0 to 2^32 - 1")


def main() -> None:
    args = parse_args()
    # torch and transformers take seconds to import, so --help and option errors do not wait for them
    from utils.data.preparation import read_utterances, utterances_sha256
    from utils.data.splits import split_utterances
    from utils.device import describe, open_device
    from utils.extraction.bad_recordings import BadRecordings
    from utils.extraction.embedding_cache import open_cache
    from utils.extraction.feature_writer import check_sources, report_path
    from utils.extraction.pipeline import Extraction, load_encoders, usable_recordings
    from utils.transcription.missing import fill_missing
    from utils.transcription.recognizer import Recognizer

    folder = Path(args.feature_dir)
    check_sources(folder, args.dataset, args.metadata)
    device = open_device(args.device)
    utterances, class_names = read_utterances(
        args.corpus, args.corpus_dir, args.metadata, args.classes, args.allow_partial, args.transcribe is None
    )
    utterances["split"], split = split_utterances(
        utterances, args.metadata, args.split, args.fold, args.folds, args.seed
    )
    bad = BadRecordings(report_path(folder, args.dataset), args.skip_bad)
    table, recordings = usable_recordings(utterances, class_names, split["kind"], bad)
    hours = sum(recording.seconds for recording in recordings.values()) / 3600
    print(f"{len(recordings)} recordings, {hours:.2f} hours; device {describe(device)}")
    *encoders, descriptions = load_encoders(args.text_model, args.text_pooling, args.audio_model, device)
    info = {
        "corpus": args.corpus,
        "corpus_dir": args.corpus_dir and str(args.corpus_dir.resolve()),
        "class_names": class_names,
        "split": split,
        "encoders": descriptions,
    }
    if args.transcribe is not None:
        recognizer = Recognizer(args.transcribe, args.audio_model, args.transcripts, device)
        same = recognizer.is_encoder(descriptions["audio"])
        cache = open_cache(args.cache_dir, "audio", descriptions["audio"], device.type) if same else None
        seconds = args.batch_seconds or BATCH_SECONDS[device.type]
        table, info["transcripts"] = fill_missing(table, recordings, recognizer, seconds, bad, cache)
        utterances.loc[table.index, "raw_text"] = table["raw_text"]
        table = bad.usable(table[table["raw_text"] != ""], recordings, class_names, split["kind"])
    info["utterances_sha256"] = utterances_sha256(utterances)
    names = ("dataset", "cache_dir", "batch_seconds", "batch_tokens", "overwrite")
    extraction = Extraction(folder, **{name: getattr(args, name) for name in names})
    with exclusive(folder / args.dataset):  # two extractions of the same name would mix their files
        for line in extraction.run(table, recordings, encoders, info, bad):
            print(line)
    elsewhere = "" if args.feature_dir == default_feature_dir() else f"FEATURE_DIR={shlex.quote(args.feature_dir)} "
    print(f"train with: {elsewhere}bash run_training.sh {args.dataset}")


if __name__ == "__main__":
    run_main(main)
