"""Predict the emotions of recordings and their transcripts with a trained run and the encoders of its features."""

import argparse
import sys
from pathlib import Path

from utils.cli import add_device_option, add_run_encoder_options, check_above_zero
from utils.config import default_save_path
from utils.errors import InputError, run_main
from utils.transcription.config import add_transcribe_options, check_transcripts


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="run folder or export (averages its seeds), seed folder, dataset, or USER/NAME[@REVISION] on the hub",
    )
    recordings = parser.add_argument_group("recordings")
    recordings.add_argument("--wav", nargs="+", metavar="PATH", help="recordings, or folders of recordings")
    recordings.add_argument("--text", nargs="+", help="one transcript per recording of --wav, in quotes")
    recordings.add_argument(
        "--csv", type=Path, help="file with audio_file,raw_text instead of --wav; raw_text may be empty"
    )
    recordings.add_argument("--corpus_dir", type=Path, help="with --csv: folder of the recordings")
    recordings.add_argument("--json", action="store_true", help="print one JSON object per line instead of a table")
    recordings.add_argument(
        "--min_confidence", type=float, metavar="P", help="answer 'uncertain' if no class has at least this probability"
    )
    recordings.add_argument(
        "--explain",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="print the neighbours behind each answer and the answers without text, audio and graph; figures in FOLDER",
    )
    long = parser.add_argument_group("long recordings")
    long.add_argument(
        "--timeline",
        nargs="?",
        const=Path(),
        type=Path,
        metavar="FOLDER",
        help="predict one emotion per utterance; write CSV, JSON lines, subtitles and a figure to FOLDER (default: .)",
    )
    long.add_argument(
        "--margin",
        type=float,
        help="with --timeline: seconds of the pauses around an utterance that are encoded with it (default: 1)",
    )
    long.add_argument(
        "--rttm", type=Path, metavar="FILE", help="file of speaker turns, with --timeline of one recording"
    )
    add_transcribe_options(parser)
    run = parser.add_argument_group("run")
    add_run_encoder_options(run)
    run.add_argument("--batch_seconds", type=float, help="seconds of speech per batch (as in extract_features.py)")
    run.add_argument("--batch_tokens", type=int, help="tokens per batch (as in extract_features.py)")
    add_device_option(run)
    run.add_argument("--save_path", default=default_save_path(), help="root of the run folders")
    run.add_argument(
        "--export", type=Path, metavar="FOLDER", help="export the run for another machine or the hub, and exit"
    )
    args = parser.parse_args()
    if sum(each is not None for each in (args.wav, args.csv, args.export)) != 1:
        raise InputError("give exactly one of --wav, --csv and --export")
    if args.text is not None and (args.wav is None or len(args.text) != len(args.wav)):
        raise InputError(f"--text: {len(args.text)} transcripts for {len(args.wav or ())} recordings of --wav")
    if args.corpus_dir is not None and args.csv is None:
        raise InputError("--corpus_dir: only with --csv")
    if args.export:
        for name in ("transcribe", "explain", "timeline", "json", "min_confidence", "batch_seconds", "batch_tokens"):
            if getattr(args, name) not in (None, False):
                raise InputError(f"--export: cannot be combined with --{name}")
    if args.timeline is not None and (args.wav is None or args.text is not None or args.explain is not None):
        raise InputError("--timeline: needs --wav, and cannot be combined with --text or --explain")
    if args.margin is not None and (args.timeline is None or args.rttm is not None):
        raise InputError("--margin: needs --timeline, and cannot be combined with --rttm")
    if args.margin is not None and not 0 <= args.margin <= 10:
        raise InputError(f"--margin {args.margin}: must be from 0 to 10 seconds")
    if args.rttm is not None and args.timeline is None:
        raise InputError("--rttm: only with --timeline of one recording")
    if args.min_confidence is not None and not 0 < args.min_confidence < 1:
        raise InputError(f"--min_confidence {args.min_confidence}: must be above 0 and below 1")
    check_transcripts(args)
    check_above_zero(args, "batch_seconds", "batch_tokens")
    return args


def main() -> int:
    args = parse_args()
    # imported here: torch and transformers take seconds to import, which --help and a wrong option do not need
    from utils.device import describe, open_device
    from utils.prediction.answers import UNCERTAIN, answer_all, requests_of_csv, requests_of_paths
    from utils.prediction.export import export_run
    from utils.prediction.hub_runs import find_run
    from utils.prediction.inductive import load_training_graph
    from utils.prediction.pipeline import Pipeline
    from utils.prediction.timelines import write_timelines
    from utils.timeline.segments import MARGIN
    from utils.training.trained import load_run

    trained = load_run(find_run(args.checkpoint, Path(args.save_path)))
    if args.min_confidence is not None and UNCERTAIN in trained[0].class_names:
        raise InputError(f"--min_confidence: the run already has a class named {UNCERTAIN}")
    graph = load_training_graph(trained[0])
    models = {"text": args.text_model, "audio": args.audio_model}
    if args.export:
        size = export_run(trained, graph, models, args.export)
        print(f"exported to {args.export}, {size / 1e6:.1f} MB; use it with: predict.py --checkpoint {args.export}")
        return 0
    requests = requests_of_csv(args.csv, args.corpus_dir) if args.csv else requests_of_paths(args.wav, args.text)

    device = open_device(args.device)
    notes = sys.stderr if args.json else sys.stdout
    seeds = f"mean of {len(trained)} seeds" if len(trained) > 1 else trained[0].name
    print(f"run {trained[0].run_folder}, {seeds}; device {describe(device)}", file=notes)
    if args.transcribe is None and (without := sum(request.text is None for request in requests)):
        print(
            f"note: {without} of {len(requests)} recordings have no transcript; "
            "the mean text embedding of the training utterances is used instead (--transcribe recognises transcripts)",
            file=notes,
        )
    pipeline = Pipeline(
        trained,
        graph,
        device,
        models,
        args.transcribe,
        args.transcripts,
        any(request.text for request in requests),
        args.batch_seconds,
        args.batch_tokens,
    )
    confidence = args.min_confidence or 0.0
    if args.timeline is not None:
        margin = MARGIN if args.margin is None else args.margin
        failed = write_timelines(requests, pipeline, args.timeline, args.rttm, args.json, confidence, margin)
    else:
        failed = answer_all(requests, pipeline, args.json, confidence, args.explain)
    if failed:
        print(f"{failed} of {len(requests)} recordings failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
