"""Turn a corpus or a manifest into feature pickles: BERT for transcripts, Wav2Vec2 for recordings (Section II.A)."""

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
from utils.extraction.config import AUDIO_MODEL, BATCH_SECONDS, TEXT_MODEL
from utils.io import exclusive
from utils.transcription.config import add_transcribe_options, check_transcripts


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("corpus", help=f"{', '.join(CORPORA)}, or any name with --metadata")
    data = parser.add_argument_group("data")
    data.add_argument("--corpus_dir", type=Path, help="folder of the recordings")
    manifest = (
        "manifest: audio_file,raw_text,label (and speaker,session,dialogue,gender,split); "
        "or one each of train, val, test; a .jsonl is EmoBox's"
    )
    data.add_argument("--metadata", type=Path, nargs="+", default=[], metavar="FILE", help=manifest)
    classes = "names in label order (for labels 0, 1, ...), or NAME=A+B to merge emotions; other emotions are excluded"
    data.add_argument("--classes", nargs="+", help=classes)
    data.add_argument("--allow_partial", action="store_true", help="accept a part of the corpus")
    data.add_argument("--skip_bad", action="store_true", help="skip bad recordings, and list them in a report")
    split = parser.add_argument_group("split")
    kind = (
        "default: official if the manifest has one; else by session or speaker if every utterance names its speaker "
        f"and there are at least {FEWEST_GROUPS}; else random"
    )
    split.add_argument("--split", choices=KINDS, help=kind)
    split.add_argument("--fold", type=int, help="session, speaker: the test fold (default: 1)")
    folds = f"session, speaker: number of folds (default: one for each, without --split at most {MOST_FOLDS})"
    split.add_argument("--folds", type=int, help=folds)
    split.add_argument("--seed", type=int, help=f"random: seed of the shuffling (default: {SEED})")
    encoders = parser.add_argument_group("encoders")
    encoders.add_argument("--text_model", default=TEXT_MODEL, help=f"folder, hub name or NAME@REVISION ({TEXT_MODEL})")
    pooling = "default: as the model's own configuration says (sentence-transformers), else pooler"
    encoders.add_argument("--text_pooling", choices=POOLINGS, help=pooling)
    encoders.add_argument("--audio_model", default=AUDIO_MODEL, help=f"likewise ({AUDIO_MODEL})")
    add_device_option(encoders)
    default = ", ".join(f"{seconds:g} on {device}" for device, seconds in BATCH_SECONDS.items())
    seconds = f"seconds of speech per batch, padding included (default: {default})"
    encoders.add_argument("--batch_seconds", type=float, help=seconds)
    encoders.add_argument("--batch_tokens", type=int, help="tokens per batch, padding included")
    add_transcribe_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--dataset", help="name of the features (default: the corpus)")
    output.add_argument("--feature_dir", default=default_feature_dir(), help="default: $FEATURE_DIR, or feature")
    cache = os.path.relpath(ROOT / "feature" / "cache")
    output.add_argument("--cache_dir", type=Path, default=cache, help="embeddings computed so far, for resuming")
    output.add_argument("--overwrite", action="store_true", help="replace existing features of this name")
    args = parser.parse_args()
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    if args.dataset is None and not re.fullmatch(NAME, args.corpus):
        raise InputError(f"{args.corpus}: must be a name of letters, digits and . _ - + =")
    if args.allow_partial and args.metadata:
        raise InputError("--allow_partial: only without --metadata, whose rows are not counted")
    args.dataset = args.dataset or args.corpus
    if not re.fullmatch(NAME, args.dataset) or args.dataset == "DEMO":
        raise InputError(f"--dataset {args.dataset}: must be a name of letters, digits and . _ - + =, and not DEMO")
    if len(args.metadata) not in (0, 1, len(SPLITS)):
        raise InputError(f"--metadata: {len(args.metadata)} files; give one, or one each of {', '.join(SPLITS)}")
    check_transcripts(args)
    check_above_zero(args, "batch_seconds", "batch_tokens")
    if args.seed is not None and not 0 <= args.seed < 2**32:
        raise InputError(f"--seed {args.seed}: must be from 0 to 2^32 - 1")


def main() -> None:
    args = parse_args()
    # torch, transformers and what builds on it: they take seconds, for which --help and a wrong option need not wait
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
    with exclusive(folder / args.dataset):  # two extractions of one name would mix their files
        for line in extraction.run(table, recordings, encoders, info, bad):
            print(line)
    elsewhere = "" if args.feature_dir == default_feature_dir() else f"FEATURE_DIR={shlex.quote(args.feature_dir)} "
    print(f"train with: {elsewhere}bash run_training.sh {args.dataset}")


if __name__ == "__main__":
    run_main(main)
