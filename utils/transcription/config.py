"""Options of the recogniser. Needs no torch, so that a wrong option is reported at once."""

import argparse
import os
from pathlib import Path

from utils.config import ROOT
from utils.errors import InputError

TRANSCRIPTS = ROOT / "feature" / "transcripts.csv"
RECOGNIZER = "openai/whisper-base.en"  # where the audio encoder gives no transcripts


def check_transcripts(args: argparse.Namespace) -> None:
    """Set ``args.transcripts`` to its default; raise an InputError if it was given without ``--transcribe``."""
    if args.transcripts is not None and args.transcribe is None:
        raise InputError("--transcripts: only with --transcribe")
    args.transcripts = args.transcripts or TRANSCRIPTS


def add_transcribe_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("transcripts")
    group.add_argument(
        "--transcribe",
        nargs="?",
        const="",
        metavar="MODEL",
        help="recognise missing transcripts by a Whisper or CTC model (default: the audio model if it is one, "
        f"else {RECOGNIZER})",
    )
    group.add_argument(
        "--transcripts",
        type=Path,
        metavar="CSV",
        help=f"keeps recognised transcripts, which you may edit (default: {os.path.relpath(TRANSCRIPTS)})",
    )
