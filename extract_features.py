"""Turn a corpus, or a metadata CSV, into feature pickles: BERT for transcripts, Wav2Vec2 for recordings (II.A)."""

import argparse
import hashlib
import json
import os
import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from models.encoders import POOLINGS
from utils.config import NAME, ROOT, default_feature_dir
from utils.corpora import CORPORA
from utils.device import describe, pick_device, set_matmul_precision
from utils.embedding_cache import EmbeddingCache
from utils.errors import InputError, run_main
from utils.extraction import SEGMENT_SECONDS, embed_recordings, embed_texts, probe_all
from utils.feature_writer import check_target, write_features, write_report
from utils.features import SPLITS
from utils.hub import load_audio_encoder, load_text_encoder
from utils.overlap import overlap_lines, overlap_report
from utils.preparation import Prepared, Request, prepare_utterances
from utils.splits import KINDS, check_splits

TEXT_MODEL = "google-bert/bert-base-uncased"
AUDIO_MODEL = "facebook/wav2vec2-base-960h"
SHOWN = 20  # bad recordings named on the screen; the report names all


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
    data.add_argument("--classes", nargs="+", help="names in label order, NAME=A+B joins emotions; others are left out")
    data.add_argument("--allow_partial", action="store_true", help="accept a part of the corpus")
    data.add_argument("--skip_bad", action="store_true", help="leave bad recordings out, and list them in a report")
    split = parser.add_argument_group("split")
    split.add_argument("--split", choices=KINDS, help="default: official where the metadata has one, else random")
    split.add_argument("--fold", type=int, default=1, help="session, speaker: the fold that is tested, from 1")
    split.add_argument("--folds", type=int, help="session, speaker: default a fold for each")
    split.add_argument("--seed", type=int, default=42, help="random: of the shuffling")
    encoders = parser.add_argument_group("encoders")
    encoders.add_argument("--text_model", default=TEXT_MODEL, help=f"folder, hub name or NAME@REVISION ({TEXT_MODEL})")
    encoders.add_argument("--text_pooling", choices=POOLINGS, default="pooler")
    encoders.add_argument("--audio_model", default=AUDIO_MODEL, help=f"likewise ({AUDIO_MODEL})")
    encoders.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    encoders.add_argument("--batch_seconds", type=float, default=120.0, help="speech in a batch, padding included")
    encoders.add_argument("--batch_tokens", type=int, default=4096, help="tokens in a batch, padding included")
    output = parser.add_argument_group("output")
    output.add_argument("--dataset", help="name of the features (default: the corpus)")
    output.add_argument("--feature_dir", default=default_feature_dir(), help="default: $FEATURE_DIR, or feature")
    output.add_argument("--cache_dir", default=os.path.relpath(ROOT / "feature" / "cache"), help="of embeddings")
    output.add_argument("--overwrite", action="store_true", help="replace other features of this name")
    args = parser.parse_args()
    args.dataset = args.dataset or args.corpus
    if not re.fullmatch(NAME, args.dataset) or args.dataset == "DEMO":
        raise InputError(f"--dataset {args.dataset}: a name of letters, digits and . _ - + that is not DEMO")
    if len(args.metadata) not in (0, 1, len(SPLITS)):
        raise InputError(f"--metadata: one CSV, or {', '.join(SPLITS)}; {len(args.metadata)} were given")
    if not args.batch_seconds > 0 or args.batch_tokens < 1:
        raise InputError("--batch_seconds and --batch_tokens must be above 0")
    if not 0 <= args.seed < 2**32:
        raise InputError(f"--seed {args.seed}: must be from 0 to 2^32 - 1")
    return args


class BadRecordings:
    """Recordings that cannot be used: the first stops the extraction, or all are listed (``--skip_bad``)."""

    def __init__(self, report: Path, skip: bool):
        self.report = report
        self.skip = skip
        self.found: list[tuple[str, str]] = []

    def add(self, path: str, error: InputError) -> None:
        if not self.skip:
            raise error
        self.found.append((path, str(error).removeprefix(f"{path}: ")))

    def add_rows(self, prepared: Prepared) -> None:
        """Every utterance with a problem, at once.

        Raises:
            InputError: there is one, and ``skip`` is off.
        """
        rows = prepared.table[prepared.table["problem"] != ""]
        if rows.empty:
            return
        where = rows["where"] if "where" in rows else rows["audio_file"]
        for place, path, problem in list(zip(where, rows["audio_file"], rows["problem"], strict=True))[:SHOWN]:
            print(f"{place}: {problem}" if place == path else f"{place}: {path}: {problem}")
        self.found += zip(rows["audio_file"], rows["problem"], strict=True)
        if not self.skip:
            write_report(self.report, self.found)
            raise InputError(
                f"{len(rows)} of {len(prepared.table)} utterances cannot be used, all named in {self.report}; "
                "--skip_bad leaves them out"
            )

    def write(self) -> None:
        """Write the report, or remove that of an earlier command where nothing is bad."""
        if self.found:
            write_report(self.report, self.found)
            print(f"{len(self.found)} recordings left out, named with their reasons in {self.report}")
        else:
            self.report.unlink(missing_ok=True)


def main() -> None:
    args = parse_args()
    folder = Path(args.feature_dir)
    device = pick_device(args.device)
    set_matmul_precision("fp32", device)
    names = ("corpus", "corpus_dir", "metadata", "classes", "split", "fold", "folds", "seed", "allow_partial")
    prepared = prepare_utterances(Request(**{name: getattr(args, name) for name in names}))
    class_names = prepared.class_names
    bad = BadRecordings(folder / f"{args.dataset}_bad_recordings.csv", args.skip_bad)
    bad.add_rows(prepared)
    table = prepared.table[prepared.table["problem"] == ""]
    check_splits(table, class_names)
    print(
        "split "
        + prepared.split["kind"]
        + ": "
        + ", ".join(f"{split} {sum(table['split'] == split)}" for split in SPLITS)
    )
    overlap = overlap_report(table, len(class_names))
    print(overlap_lines(overlap))
    recordings = probe_all(list(table["audio_file"]), bad.add)
    seconds = sum(recording.seconds for recording in recordings.values())
    print(f"{len(recordings)} recordings, {seconds / 3600:.2f} hours; device {describe(device)}")

    text_encoder, text_info = load_text_encoder(args.text_model, args.text_pooling, device)
    audio_encoder, audio_info = load_audio_encoder(args.audio_model, device)
    audio_info["segment_seconds"] = SEGMENT_SECONDS
    print(f"text   {text_info['name']} ({text_info['type']}, {text_info['pooling']}, {text_info['dim']} values)")
    print(f"audio  {audio_info['name']} ({audio_info['type']}, mean over time, {audio_info['dim']} values)")
    info = {
        "corpus": args.corpus,
        "class_names": class_names,
        "split": prepared.split,
        "encoders": {"text": text_info, "audio": audio_info},
    }
    if not args.overwrite:
        check_target(folder, args.dataset, info)

    caches = {
        name: EmbeddingCache(cache_folder(Path(args.cache_dir), name, description, device.type), description["dim"])
        for name, description in info["encoders"].items()
    }
    table = table[table["audio_file"].isin(recordings)]
    too_long = embed_texts(text_encoder, list(table["raw_text"]), caches["text"], args.batch_tokens)
    if too_long:
        print(f"note: {too_long} transcripts are longer than {text_encoder.max_tokens} tokens and were cut")
    audio = embed_recordings(audio_encoder, recordings, caches["audio"], args.batch_seconds, bad.add)

    table = table[table["audio_file"].isin(audio)]
    check_splits(table, class_names)
    if overlap != (overlap := overlap_report(table, len(class_names))):
        print(f"without the bad recordings:\n{overlap_lines(overlap)}")
    info |= {"overlap": overlap, "device": device.type, "left_out": len(bad.found), "transcripts_cut": too_long}
    path = write_features(folder, args.dataset, table, caches["text"].vectors, audio, info)
    bad.write()
    for split in SPLITS:
        counts = Counter(table.loc[table["split"] == split, "label"])
        per_class = ", ".join(f"{counts[i]} {name}" for i, name in enumerate(class_names))
        print(f"{args.dataset}_BERT_WAV2VEC_{split}.pkl: {sum(counts.values())} utterances ({per_class})")
    print(f"saved in {folder}, described in {path}\ntrain with: bash run_training.sh {args.dataset}")


def cache_folder(root: Path, modality: str, description: dict, device: str) -> Path:
    """The cache of one encoder: of whatever its embeddings depend on, to the last bit."""
    parts = {name: value for name, value in description.items() if name not in ("name", "revision")}
    parts |= {"device": device, "versions": [version(name) for name in ("torch", "torchaudio", "transformers")]}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return root / f"{modality}-{description['type']}-{digest[:16]}"


if __name__ == "__main__":
    run_main(main)
