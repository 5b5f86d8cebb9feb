"""Options of the recogniser. Does not import torch, so that a wrong option is reported at once."""

import argparse
import os
from pathlib import Path

from utils.config import ROOT
from utils.errors import InputError

TRANSCRIPTS = ROOT / "feature" / "transcripts.csv"
RECOGNIZER = "openai/whisper-base.en"  # default if the audio encoder cannot transcribe


def check_transcripts(args: argparse.Namespace) -> None:
    """Set the default of ``args.transcripts``. Raise an InputError if it was given without ``--transcribe``."""
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
        help="transcribe recordings that have no transcript, with a Whisper or CTC model (default: the audio model if "
        f"it is one, otherwise {RECOGNIZER})",
    )
    group.add_argument(
        "--transcripts",
        type=Path,
        metavar="CSV",
        help=f"file that stores the recognised transcripts; you may edit it (default: {os.path.relpath(TRANSCRIPTS)})",
    )
