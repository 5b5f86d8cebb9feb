"""Print the train/test leakage of the published splits (2 s).

    python -m benchmarks.published_leakage FOLDER     # with IEMOCAP_metadata_train.csv and so on

It reads only the manifests of the authors' repository, not the recordings.
"""

import argparse
from pathlib import Path

from utils.config import SPLITS
from utils.data.classes import give_labels
from utils.data.corpora import CORPORA
from utils.data.leakage import leakage_lines, leakage_report
from utils.data.manifest import utterances_of
from utils.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for dataset in ("IEMOCAP", "ESD"):
        paths = [folder / f"{dataset}_metadata_{split}.csv" for split in SPLITS]
        table, _ = give_labels(utterances_of(paths, dataset, None), CORPORA[dataset].classes)
        print(f"{dataset}, {len(table)} utterances: {leakage_lines(leakage_report(table))}")


if __name__ == "__main__":
    run_main(main)
