"""Predict the emotions of recordings with transcripts, by a trained run and the encoders of its features."""

import argparse
import sys
from pathlib import Path

from utils.cli import add_device_option, check_above_zero
from utils.config import default_save_path
from utils.errors import InputError, run_main
from utils.extraction.config import BATCH_SECONDS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--checkpoint", required=True, help="run folder (the mean of its seeds), seed folder, best.pt, or dataset"
    )
    recordings = parser.add_argument_group("recordings")
    recordings.add_argument("--wav", nargs="+", metavar="PATH", help="recordings, or folders of recordings")
    recordings.add_argument("--text", nargs="+", help="one transcript per recording of --wav, in quotes")
    recordings.add_argument("--csv", type=Path, help="audio_file,raw_text instead; raw_text may be empty")
    recordings.add_argument("--corpus_dir", type=Path, help="with --csv: folder of the recordings")
    recordings.add_argument("--json", action="store_true", help="print one JSON object per line instead of a table")
    recordings.add_argument(
        "--min_confidence", type=float, metavar="P", help="where no class has this probability: the emotion uncertain"
    )
    run = parser.add_argument_group("run")
    run.add_argument("--text_model", help="folder of the run's encoder on this machine (default: as in training)")
    run.add_argument("--audio_model", help="likewise")
    run.add_argument("--batch_seconds", type=float, help="memory: speech in a batch (as in extract_features.py)")
    run.add_argument("--batch_tokens", type=int, help="likewise, tokens")
    add_device_option(run)
    run.add_argument("--save_path", default=default_save_path(), help="root of the run folders")
    run.add_argument("--export", type=Path, metavar="FOLDER", help="write all that another machine needs, and exit")
    args = parser.parse_args()
    if sum(each is not None for each in (args.wav, args.csv, args.export)) != 1:
        raise InputError("one of --wav, --csv and --export is needed")
    if args.text is not None and (args.wav is None or len(args.text) != len(args.wav)):
        raise InputError(f"--text: {len(args.text)} transcripts for {len(args.wav or ())} recordings of --wav")
    if args.corpus_dir is not None and args.csv is None:
        raise InputError("--corpus_dir: only with --csv")
    if args.min_confidence is not None and not 0 < args.min_confidence < 1:
        raise InputError(f"--min_confidence {args.min_confidence}: must be above 0 and below 1")
    check_above_zero(args, "batch_seconds", "batch_tokens")
    return args


def main() -> int:
    args = parse_args()
    # torch, transformers and what builds on it: they take seconds, for which --help and a wrong option need not wait
    from utils.device import describe, open_device
    from utils.prediction.answers import UNCERTAIN, Answers, requests_of_csv, requests_of_paths
    from utils.prediction.inductive import Predictor, load_training_graph
    from utils.prediction.pipeline import answer, embed_transcripts
    from utils.prediction.run_encoders import export_run, load_run_encoder
    from utils.training.trained import find_checkpoints, load_run

    _, paths = find_checkpoints(args.checkpoint, Path(args.save_path))
    trained = load_run(paths)
    if args.min_confidence is not None and UNCERTAIN in trained[0].class_names:
        raise InputError(f"--min_confidence: the run has a class {UNCERTAIN} of its own")
    graph = load_training_graph(trained[0])
    run = trained[0].run_folder
    if args.export:
        given = {"text": args.text_model, "audio": args.audio_model}
        size = export_run(trained, graph, given, args.export)
        print(f"exported to {args.export}, {size / 1e6:.1f} MB; use it with: predict.py --checkpoint {args.export}")
        return 0
    requests = requests_of_csv(args.csv, args.corpus_dir) if args.csv else requests_of_paths(args.wav, args.text)

    device = open_device(args.device)
    notes = sys.stderr if args.json else sys.stdout
    seeds = f"mean of {len(trained)} seeds" if len(trained) > 1 else trained[0].name
    print(f"run {run}, {seeds}; device {describe(device)}", file=notes)
    without = sum(request.text is None for request in requests)
    if without:
        print(
            f"note: {without} of {len(requests)} recordings have no transcript; "
            "the mean text embedding of the training utterances is used instead",
            file=notes,
        )
    texts = embed_transcripts(requests, graph, run, args.text_model, args.batch_tokens, device)
    encoder = load_run_encoder("audio", graph, run, args.audio_model, device)
    predictor = Predictor(trained, graph, device)
    answers = Answers(requests, trained[0].class_names, args.json, args.min_confidence or 0.0)
    answer(requests, texts, encoder, predictor, args.batch_seconds or BATCH_SECONDS[device.type], answers)
    if answers.failed:
        print(f"{answers.failed} of {len(requests)} recordings failed", file=sys.stderr)
    return 1 if answers.failed else 0


if __name__ == "__main__":
    run_main(main)
