"""Recordings and their transcripts to emotions, by a trained run and the encoders that its features were made with."""

import argparse
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from models.encoders import AudioEncoder
from utils.audio import split_into_segments
from utils.checkpoints import find_checkpoints, load_run
from utils.cli import add_device_option, check_above_zero
from utils.config import default_save_path
from utils.device import describe, pick_device, set_matmul_precision
from utils.errors import InputError, run_main
from utils.extraction.embedding import embed_texts, probe_all
from utils.extraction.embedding_cache import EmbeddingCache
from utils.extraction.encoding import BATCH_SECONDS, BATCH_TOKENS, batches_in_order, longest_segment, stream_embeddings
from utils.prediction.answers import Answers, Row, rows_of_csv, rows_of_paths
from utils.prediction.joining import Predictor, TrainingGraph, load_training_graph, run_folder
from utils.prediction.run_encoders import export_run, load_run_encoder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--checkpoint", required=True, help="run folder (the mean of its seeds), seed folder, best.pt, or dataset"
    )
    asked = parser.add_argument_group("what is asked")
    asked.add_argument("--wav", nargs="+", metavar="PATH", help="recordings, or folders of them")
    asked.add_argument("--text", nargs="+", help="a transcript for each recording of --wav, in quotes")
    asked.add_argument("--csv", type=Path, help="audio_file,raw_text in place of these; raw_text may be empty")
    asked.add_argument("--corpus_dir", type=Path, help="with --csv: folder of the recordings")
    asked.add_argument("--json", action="store_true", help="a JSON object a line in place of the table")
    run = parser.add_argument_group("run")
    run.add_argument("--text_model", help="where the run's encoder is on this machine (default: as it was in training)")
    run.add_argument("--audio_model", help="likewise")
    run.add_argument("--batch_seconds", type=float, help="memory: speech in a batch (as in extract_features.py)")
    run.add_argument("--batch_tokens", type=int, help="likewise, tokens")
    add_device_option(run)
    run.add_argument("--save_path", default=default_save_path(), help="where the runs of a dataset are looked for")
    run.add_argument("--export", type=Path, metavar="FOLDER", help="write what another machine needs, and stop")
    args = parser.parse_args()
    if sum(each is not None for each in (args.wav, args.csv, args.export)) != 1:
        raise InputError("one of --wav, --csv and --export is needed")
    if args.text is not None and (args.wav is None or len(args.text) != len(args.wav)):
        raise InputError(f"--text: {len(args.text)} transcripts for {len(args.wav or ())} recordings of --wav")
    if args.corpus_dir is not None and args.csv is None:
        raise InputError("--corpus_dir: only with --csv")
    check_above_zero(args, "batch_seconds", "batch_tokens")
    return args


def main() -> int:
    args = parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # file names may be in any encoding
    _, paths = find_checkpoints(args.checkpoint, Path(args.save_path))
    trained = load_run(paths)
    graph = load_training_graph(trained[0])
    run = run_folder(trained[0])
    if args.export:
        given = {"text": args.text_model, "audio": args.audio_model}
        size = export_run(trained, graph, given, args.export)
        print(f"exported to {args.export}, {size / 1e6:.1f} MB: predict.py --checkpoint {args.export}, wherever it is")
        return 0
    rows = rows_of_csv(args.csv, args.corpus_dir) if args.csv else rows_of_paths(args.wav, args.text)

    device = pick_device(args.device)
    set_matmul_precision("fp32", device)
    say = sys.stderr if args.json else sys.stdout
    seeds = f"mean of {len(trained)} seeds" if len(trained) > 1 else trained[0].name
    print(f"run {run}, {seeds}; device {describe(device)}", file=say)
    without = sum(row.text is None for row in rows)
    if without:
        print(
            f"note: {without} of {len(rows)} recordings have no transcript; "
            "the mean text embedding of the run's training utterances stands in for theirs",
            file=say,
        )
    texts = embed_all_texts(rows, graph, run, args, device)
    encoder = load_run_encoder("audio", graph, run, args.audio_model, device)
    predictor = Predictor(trained, graph, device)
    answers = Answers(rows, trained[0].class_names, args.json)
    answer(rows, texts, encoder, predictor, args.batch_seconds or BATCH_SECONDS[device.type], answers)
    if answers.failed:
        print(f"{answers.failed} of {len(rows)} recordings failed", file=sys.stderr)
    return 1 if answers.failed else 0


def embed_all_texts(
    rows: list[Row], graph: TrainingGraph, run: Path, args: argparse.Namespace, device: torch.device
) -> dict[str | None, torch.Tensor]:
    """The text embedding [D_text] of every transcript, and of None."""
    embeddings = {None: graph.text.mean(0)}
    texts = list(dict.fromkeys(row.text for row in rows if row.text is not None))
    if texts:
        encoder = load_run_encoder("text", graph, run, args.text_model, device)
        cache = EmbeddingCache(None, encoder.dim)
        cut = embed_texts(encoder, texts, cache, args.batch_tokens or BATCH_TOKENS[device.type])
        if cut:
            print(f"note: {cut} transcripts are longer than {encoder.max_tokens} tokens and were cut", file=sys.stderr)
        embeddings |= {text: torch.from_numpy(cache[text]) for text in texts}
    return embeddings


def answer(
    rows: list[Row],
    texts: dict[str | None, torch.Tensor],
    encoder: AudioEncoder,
    predictor: Predictor,
    batch_seconds: float,
    answers: Answers,
) -> None:
    """Encode the recordings in their order, and answer each as soon as its last segment is encoded."""
    rows_of: dict[str, list[Row]] = {}  # a recording may be asked with several transcripts
    for row in rows:
        rows_of.setdefault(row.path, []).append(row)
    problems: dict[str, InputError | str] = {row.path: row.problem for row in rows if row.problem}
    recordings = probe_all([path for path in rows_of if path not in problems], problems.__setitem__)
    longest = longest_segment(encoder)
    segments = [
        segment for each in recordings.values() for segment in split_into_segments(each, longest, encoder.sampling_rate)
    ]

    def on_bad(path: str, error: InputError | str) -> None:
        for row in rows_of[path]:
            answers.fail(row, str(error).removeprefix(f"{path}: "))

    batches = batches_in_order(segments, encoder, batch_seconds)
    with answers, closing(stream_embeddings(encoder, batches, on_bad)) as stream:
        for path, problem in problems.items():
            on_bad(path, problem)
        for _, embeddings in stream:
            asked = [(row, embedding) for path, embedding in embeddings.items() for row in rows_of[path]]
            if asked:
                text = torch.stack([texts[row.text] for row, _ in asked])
                audio = torch.from_numpy(np.stack([embedding for _, embedding in asked]))
                for (row, _), probabilities in zip(asked, predictor(text, audio), strict=True):
                    answers.add(row, probabilities.tolist())


if __name__ == "__main__":
    run_main(main)
