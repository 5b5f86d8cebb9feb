"""Results by speaker, gender, session and class, worst first: for whom a model is wrong."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.data.identity import Identity, write_csv
from utils.io import align, atomic_write

KINDS = ("speaker", "gender", "session", "class")
LEAST = 10  # utterances; a smaller group is listed, but not named as the worst
MOST = 12  # groups of a kind that are printed; if there are more, only the WORST
WORST = 5
COLUMNS = ("kind", "group", "utterances", "wa", "ua")


def group_results(
    identity: Identity, label: np.ndarray, prediction: np.ndarray, class_names: Sequence[str]
) -> list[dict]:
    """One row per group, sorted by kind and WA, worst first. A kind has no rows if all its values are unknown.

    Shapes: label [N], prediction [S, N].

    Returns:
        Rows with :data:`COLUMNS`. ``group`` is "" for utterances whose group is unknown. ``wa`` is the share of correct
        predictions, ``ua`` the mean recall over the classes that occur in the group; both are means over the seeds. If
        the group is a class, both are its recall.
    """
    hits = (prediction == label).mean(0)
    names = {kind: np.array(identity[kind], object) for kind in KINDS[:-1]}
    names["class"] = np.array(class_names, object)[label]
    rows = []
    for kind, of_kind in names.items():
        if not of_kind.astype(bool).any():
            continue
        groups, group = np.unique(of_kind, return_inverse=True)
        cells, cell, sizes = np.unique(group * len(class_names) + label, return_inverse=True, return_counts=True)
        recall, of_cell = np.bincount(cell, hits) / sizes, cells // len(class_names)
        count = np.bincount(group)
        wa, ua = np.bincount(group, hits) / count, np.bincount(of_cell, recall) / np.bincount(of_cell)
        found = zip(groups.tolist(), count.tolist(), wa.tolist(), ua.tolist(), strict=True)
        rows += [
            dict(zip(COLUMNS, (kind, *each), strict=True)) for each in sorted(found, key=lambda row: (row[2], -row[1]))
        ]
    return rows


def write_groups(path: Path, rows: Sequence[dict]) -> None:
    """Write the rows of :func:`group_results` as CSV, scores as fractions."""
    scores = ("wa", "ua")
    lines = [[f"{row[name]:.6f}" if name in scores else row[name] for name in COLUMNS] for row in rows]
    atomic_write(path, write_csv([COLUMNS, *lines]))


def group_lines(rows: Sequence[dict], file: str) -> list[str]:
    """Tables of :func:`group_results`, with the worst group of each kind. ``file`` is the CSV that has all rows."""
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        shown = of_kind if len(of_kind) <= MOST else of_kind[:WORST]
        header = (kind, "utterances", *(("recall",) if kind == "class" else ("WA", "UA")))
        cells = [
            (row["group"] or "(unknown)", str(row["utterances"]), *(f"{100 * row[name]:.1f}" for name in ("wa", "ua")))
            for row in shown
        ]
        lines += ["", *align([header, *(row[: len(header)] for row in cells)])]
        if len(of_kind) > len(shown):
            lines.append(f"and {len(of_kind) - len(shown)} more in {file}")
        large = [row for row in of_kind if row["utterances"] >= LEAST and row["group"]]
        if len(large) > 1:
            worst, score = large[0], header[2]
            lines.append(
                f"worst {kind}: {worst['group']}, {score} {100 * worst['wa']:.1f}, {worst['utterances']} utterances"
            )
        if small := sum(row["utterances"] < LEAST for row in of_kind):
            lines.append(f"not named as the worst: {small} with fewer than {LEAST} utterances")
    return lines
