"""Recordings that cannot be used, and the report that names them."""

from collections.abc import Container
from pathlib import Path

import pandas as pd

from utils.errors import InputError
from utils.extraction.feature_writer import write_csv
from utils.splits import check_splits

SHOWN = 20  # named on the screen; the report names all


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

    def add_rows(self, table: pd.DataFrame) -> None:
        """Every row with a ``problem``, at once.

        Raises:
            InputError: there is one, and ``skip`` is off.
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
            raise InputError(
                f"{len(rows)} of {len(table)} utterances cannot be used, all named in {self.report}; "
                "--skip_bad leaves them out"
            )

    def usable(self, table: pd.DataFrame, recordings: Container[str], class_names: list[str]) -> pd.DataFrame:
        """The rows whose recordings are good.

        Raises:
            InputError: too little is left to train on; the report says what is missing.
        """
        rows = table[[path in recordings for path in table["audio_file"]]]
        try:
            check_splits(rows, class_names)
        except InputError as error:
            self.write()
            hint = f" ({len(self.found)} recordings are left out, see {self.report})" if self.found else ""
            raise InputError(f"{error}{hint}") from error
        return rows

    def write(self) -> None:
        """Write the report, or remove that of an earlier command where nothing is bad."""
        if self.found:
            write_csv(self.report, pd.DataFrame(self.found, columns=["audio_file", "reason"]))
        else:
            self.report.unlink(missing_ok=True)
