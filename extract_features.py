"""Turn a corpus, or a metadata CSV, into feature pickles: BERT for transcripts, Wav2Vec2 for recordings (II.A)."""

import argparse
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from models.encoders import POOLINGS
from utils.cli import add_device_option, check_above_zero
from utils.config import NAME, ROOT, default_feature_dir
from utils.corpora import CORPORA
from utils.device import describe, pick_device, set_matmul_precision
from utils.errors import InputError, run_main
from utils.extraction.bad_recordings import BadRecordings
from utils.extraction.embedding import embed_recordings, embed_texts, probe_all
from utils.extraction.embedding_cache import open_cache
from utils.extraction.encoding import BATCH_SECONDS, BATCH_TOKENS, SEGMENT_SECONDS
from utils.extraction.feature_writer import check_sources, check_target, write_features
from utils.extraction.hub import AUDIO_MODEL, TEXT_MODEL, load_audio_encoder, load_text_encoder
from utils.features import SPLITS
from utils.files import check_writable
from utils.finetuning.provenance import check_untested
from utils.overlap import overlap_lines, overlap_report
from utils.preparation import Request, prepare_utterances
from utils.splits import KINDS, SEED


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("corpus", help=f"{', '.join(CORPORA)}, or any name with --metadata")
    data = parser.add_argument_group("data")
    data.add_argument("--corpus_dir", type=Path, help="folder of the recordings")
    data.add_argument(
        "--metadata",
        type=Path,
        nargs="+",
        default=[],
        metavar="CSV",
        help="audio_file,raw_text,label (and speaker,session,dialogue,split); or three files, train, val and test",
    )
    data.add_argument(
        "--classes",
        nargs="+",
        help="names in label order (for labels 0, 1, ...), or NAME=A+B, which joins emotions; the others are left out",
    )
    data.add_argument("--allow_partial", action="store_true", help="accept a part of the corpus")
    data.add_argument("--skip_bad", action="store_true", help="leave bad recordings out, and list them in a report")
    split = parser.add_argument_group("split")
    split.add_argument("--split", choices=KINDS, help="default: official where the metadata has one, else random")
    split.add_argument("--fold", type=int, help="session, speaker: the fold that is tested (default: 1)")
    split.add_argument("--folds", type=int, help="session, speaker: default a fold for each")
    split.add_argument("--seed", type=int, help=f"random: of the shuffling (default: {SEED})")
    encoders = parser.add_argument_group("encoders")
    defaults = ", ".join(f"{seconds:g} on {device}" for device, seconds in BATCH_SECONDS.items())
    encoders.add_argument("--text_model", default=TEXT_MODEL, help=f"folder, hub name or NAME@REVISION ({TEXT_MODEL})")
    encoders.add_argument("--text_pooling", choices=POOLINGS, default="pooler")
    encoders.add_argument("--audio_model", default=AUDIO_MODEL, help=f"likewise ({AUDIO_MODEL})")
    add_device_option(encoders)
    encoders.add_argument(
        "--batch_seconds", type=float, help=f"speech in a batch, padding included (default: {defaults})"
    )
    encoders.add_argument("--batch_tokens", type=int, help="tokens in a batch, padding included (likewise)")
    output = parser.add_argument_group("output")
    output.add_argument("--dataset", help="name of the features (default: the corpus)")
    output.add_argument("--feature_dir", default=default_feature_dir(), help="default: $FEATURE_DIR, or feature")
    output.add_argument("--cache_dir", default=os.path.relpath(ROOT / "feature" / "cache"), help="of embeddings")
    output.add_argument("--overwrite", action="store_true", help="replace other features of this name")
    args = parser.parse_args()
    if args.dataset is None and not re.fullmatch(NAME, args.corpus):
        raise InputError(f"{args.corpus}: a name of letters, digits and . _ - +")
    if args.allow_partial and args.metadata:
        raise InputError("--allow_partial: only without --metadata, whose rows are not counted")
    args.dataset = args.dataset or args.corpus
    if not re.fullmatch(NAME, args.dataset) or args.dataset == "DEMO":
        raise InputError(f"--dataset {args.dataset}: a name of letters, digits and . _ - + that is not DEMO")
    if len(args.metadata) not in (0, 1, len(SPLITS)):
        raise InputError(f"--metadata: one CSV, or {', '.join(SPLITS)}; {len(args.metadata)} were given")
    check_above_zero(args, "batch_seconds", "batch_tokens")
    if args.seed is not None and not 0 <= args.seed < 2**32:
        raise InputError(f"--seed {args.seed}: must be from 0 to 2^32 - 1")
    return args


def main() -> None:
    args = parse_args()
    folder = Path(args.feature_dir)
    check_sources(folder, args.dataset, args.metadata)
    device = pick_device(args.device)
    set_matmul_precision("fp32", device)
    names = ("corpus", "corpus_dir", "metadata", "classes", "split", "fold", "folds", "seed", "allow_partial")
    prepared = prepare_utterances(Request(**{name: getattr(args, name) for name in names}))
    class_names = prepared.class_names
    bad = BadRecordings(folder / f"{args.dataset}_bad_recordings.csv", args.skip_bad)
    bad.add_rows(prepared.table)
    good = prepared.table.loc[prepared.table["problem"] == "", "audio_file"]
    recordings = probe_all(list(good), bad.add)
    table = bad.usable(prepared.table, recordings, class_names)
    sizes = table["split"].value_counts()
    print(f"split {prepared.split['kind']}: {', '.join(f'{split} {sizes[split]}' for split in SPLITS)}")
    overlap = overlap_report(table, len(class_names))
    print(overlap_lines(overlap))
    seconds = sum(recording.seconds for recording in recordings.values())
    print(f"{len(recordings)} recordings, {seconds / 3600:.2f} hours; device {describe(device)}")

    text_encoder, text_info = load_text_encoder(args.text_model, args.text_pooling, device)
    audio_encoder, audio_info = load_audio_encoder(args.audio_model, device)
    audio_info["segment_seconds"] = SEGMENT_SECONDS
    for name, each in (("text ", text_info), ("audio", audio_info)):
        print(f"{name}  {each['name']} ({each['type']}, pooling {each['pooling']}, {each['dim']} values)")
    info = {
        "corpus": args.corpus,
        "corpus_dir": args.corpus_dir and str(args.corpus_dir.resolve()),
        "class_names": class_names,
        "split": prepared.split,
        "utterances_sha256": prepared.sha256,
        "encoders": {"text": text_info, "audio": audio_info},
    }
    tested = table.loc[table["split"] == "test", "audio_file"].tolist()
    check_untested(args.text_model, "--text_model", tested)
    check_untested(args.audio_model, "--audio_model", tested)
    check_target(folder, args.dataset, info, len(table), args.overwrite)
    text_cache, audio_cache = (
        open_cache(Path(args.cache_dir), name, description, device.type)
        for name, description in info["encoders"].items()
    )
    check_writable(folder)
    bad.write()

    batch_tokens = args.batch_tokens or BATCH_TOKENS[device.type]
    too_long = embed_texts(text_encoder, list(table["raw_text"]), text_cache, batch_tokens)
    if too_long:
        print(f"note: {too_long} transcripts are longer than {text_encoder.max_tokens} tokens and were cut")
    batch_seconds = args.batch_seconds or BATCH_SECONDS[device.type]
    audio = embed_recordings(audio_encoder, recordings, audio_cache, batch_seconds, bad.add)

    decoded = bad.usable(table, audio, class_names)
    bad.write()
    if len(decoded) < len(table):
        overlap = overlap_report(decoded, len(class_names))
        print(f"without what could not be decoded, {overlap_lines(overlap)}")
    info |= {"overlap": overlap, "device": device.type, "left_out": len(bad.found), "transcripts_cut": too_long}
    path = write_features(folder, args.dataset, decoded, text_cache, audio, info)
    print(*summary(args, decoded, class_names, bad, path), sep="\n")


def summary(
    args: argparse.Namespace, table: pd.DataFrame, class_names: list[str], bad: BadRecordings, description: Path
) -> Iterator[str]:
    """The last lines: what was written, what was left out, what to do next."""
    if bad.found:
        yield f"{len(bad.found)} recordings left out, named with their reasons in {bad.report}"
    for split in SPLITS:
        counts = Counter(table.loc[table["split"] == split, "label"])
        per_class = ", ".join(f"{counts[i]} {name}" for i, name in enumerate(class_names))
        yield f"{args.dataset}_BERT_WAV2VEC_{split}.pkl: {sum(counts.values())} utterances ({per_class})"
    elsewhere = "" if args.feature_dir == default_feature_dir() else f"FEATURE_DIR={shlex.quote(args.feature_dir)} "
    yield f"saved in {args.feature_dir}, described in {description}"
    yield f"train with: {elsewhere}bash run_training.sh {args.dataset}"


if __name__ == "__main__":
    run_main(main)
