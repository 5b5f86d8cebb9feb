"""What the test splits of the published CSVs share with train; needs no recordings (2 s).

    python -m benchmarks.published_overlap FOLDER     # of IEMOCAP_metadata_train.csv and so on

The CSVs are those of the authors' repository.
"""

import argparse
from pathlib import Path

from utils.classes import give_labels
from utils.corpora import CORPORA
from utils.errors import run_main
from utils.features import SPLITS
from utils.metadata import read_metadata, utterances_of
from utils.overlap import overlap_lines, overlap_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for dataset in ("IEMOCAP", "ESD"):
        tables = [read_metadata(folder / f"{dataset}_metadata_{split}.csv").assign(split=split) for split in SPLITS]
        classes = CORPORA[dataset].classes
        table, _ = give_labels(utterances_of(tables, dataset, None, folder), classes)
        print(f"{dataset}, {len(table)} utterances: {overlap_lines(overlap_report(table, len(classes)))}")


if __name__ == "__main__":
    run_main(main)
