"""Collects recordings that cannot be used, and writes the report that lists them."""

from collections.abc import Container
from pathlib import Path

import pandas as pd

from utils.data.splits import check_splits
from utils.errors import InputError, problem_of
from utils.extraction.feature_writer import csv_bytes
from utils.io import atomic_write

SHOWN = 20  # number of recordings to print; the report lists all


class BadRecordings:
    """Collects bad recordings for the file ``report`` if ``skip`` is set. Otherwise raises the first error."""

    def __init__(self, report: Path, skip: bool):
        self.report = report
        self.skip = skip
        self.found: list[tuple[str, str]] = []

    def add(self, path: str, error: InputError) -> None:
        if not self.skip:
            raise error
        if path not in dict(self.found):  # the recogniser and the encoder may both report it
            self.found.append((path, problem_of(path, error)))

    def add_rows(self, table: pd.DataFrame) -> None:
        """Print and add all rows with a ``problem``.

        Raises:
            InputError: There is such a row, and ``skip`` is not set.
        """
        rows = table[table["problem"] != ""]
        if rows.empty:
            return
        where = rows["where"] if "where" in rows else rows["audio_file"]
        for place, path, problem in list(zip(where, rows["audio_file"], rows["problem"], strict=True))[:SHOWN]:
            print(f"{place}: {problem}" if place == path else f"{place}: {path}: {problem}")
        if len(rows) > SHOWN:
            print(f"... and {len(rows) - SHOWN} more")
        self.found += zip(rows["audio_file"], rows["problem"], strict=True)
        if not self.skip:
            self.write()
            count = f"{len(rows)} of {len(table)} utterances cannot be used"
            raise InputError(f"{count} (listed in {self.report}); use --skip_bad to skip them")

    def usable(
        self, table: pd.DataFrame, recordings: Container[str], class_names: list[str], kind: str
    ) -> pd.DataFrame:
        """Select the rows of good recordings. ``kind`` is the kind of split.

        Raises:
            InputError: A split is empty, or train lacks a class. The report is written first.
        """
        rows = table[[path in recordings for path in table["audio_file"]]]
        try:
            check_splits(rows, class_names, kind)
        except InputError as error:
            self.write()
            hint = f" ({len(self.found)} recordings are skipped, see {self.report})" if self.found else ""
            raise InputError(f"{error}{hint}") from error
        return rows

    def write(self) -> None:
        """Write the report. If no recording is bad, remove an old report."""
        if self.found:
            atomic_write(self.report, csv_bytes(pd.DataFrame(self.found, columns=["audio_file", "reason"])))
        else:
            self.report.unlink(missing_ok=True)
