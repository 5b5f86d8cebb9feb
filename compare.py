"""Compare two systems on the same utterances: which is better, by how much, and could chance explain it?"""

import argparse
from pathlib import Path

from utils.errors import run_main

CLUSTERS = ("speaker", "session", "dialogue", "utterance")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    what = "run or seed folder, folder of a cross-validation, or a CSV with id (or audio_file), label and prediction"
    parser.add_argument("a", metavar="RUN_A", type=Path, help=what)
    parser.add_argument("b", metavar="RUN_B", type=Path, help="the second system, as RUN_A; differences are B - A")
    parser.add_argument(
        "--split", choices=("val", "test"), default="test", help="split of run and seed folders (default: test)"
    )
    parser.add_argument(
        "--by", choices=CLUSTERS, help="clusters (default: speaker, otherwise dialogue, otherwise utterance)"
    )
    parser.add_argument("--common", action="store_true", help="compare only the utterances that both systems have")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to a JSON file")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # numpy, scipy and torch take seconds to import; --help and option errors do not wait for them
    from utils.io import write_json
    from utils.training.comparison import compare
    from utils.training.matching import match, read_answers

    pair = match(*(read_answers(path, args.split) for path in (args.a, args.b)), args.common)
    comparison = compare(pair, args.by)
    print(comparison.text())
    if args.json:
        write_json(args.json, comparison.to_dict())


if __name__ == "__main__":
    run_main(main)
