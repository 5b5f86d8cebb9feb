"""Write the results in README.md and docs/ from the files in ``docs/results/``.

    python -m docs.generate            # after a file in docs/results/ has changed
    python -m docs.generate --check    # fail if a page is out of date; run_tests.sh does this

A page calls a function of this module in a comment, and cog writes what it prints below::

    <!--[ output("demo-training") ]-->
    <!--end-->

``python -m benchmarks.record`` writes the result files.
"""

import argparse
import sys
from functools import cache
from pathlib import Path

from cogapp import Cog

from utils.config import PROFILES
from utils.io import markdown_table, read_json
from utils.statistics import Clustered, with_interval
from utils.training.metrics import PRINTED
from utils.training.probes import LINEAR

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
HEADLINE = [("logistic regression on the same embeddings", f"probe-{LINEAR.name}", None)]
HEADLINE += [
    (f"`{profile}`{title}", f"{profile}{option}", ablation)
    for profile in PROFILES
    for title, option, ablation in (
        ("", "", "none"),
        (", w/o CH-GAT", "-ablation=no_chgat", "no_chgat"),
        (", w/o xCBAM", "-ablation=no_xcbam", "no_xcbam"),
    )
]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def result(name: str) -> dict:
    """The result file of this name."""
    return read_json(RESULTS / f"{name}.json")


def source(name: str) -> None:
    """One paragraph: the command, the data, the machine, the duration and the commit of a result."""
    found = result(name)
    seconds, versions = found["seconds"], found["versions"]
    took = "" if seconds is None else f"{seconds / 60:.0f} min on " if seconds >= 120 else f"{seconds:.0f} s on "
    note = f" {found['note']}" if found["note"] else ""
    print(
        f"\n*`{found['command']}`: {found['data']}. Measured: {took}{found['machine']}, torch {versions['torch']}, "
        f"{found['date']}, commit `{found['commit']}`.{note}*\n"
    )


def output(name: str, first: str = "", last: str = "") -> None:
    """What the command printed, as a code block with its source.

    Args:
        first, last: beginnings of the first and of the last line to show.
    """
    print("\n```\n" + "\n".join(_lines(name, first, last)) + "\n```")
    source(name)


def table(name: str, first: str = "", last: str = "") -> None:
    """What the command printed as a Markdown table, with its source."""
    print("\n" + "\n".join(_lines(name, first, last)))
    source(name)


def headline(name: str) -> None:
    """The table of the README: WA with speakers unseen and seen in training, next to what the paper prints."""
    files, rows = result(name)["files"], []
    for title, row, ablation in HEADLINE:
        by_session, random = (
            files[f"IEMOCAP/folds-{by}/{row}/results.json"]["pooled"]["wa"] for by in ("session", "random")
        )
        paper = PRINTED["IEMOCAP"].get(("min", ablation)) if row.startswith("official") else None
        cells = [with_interval(Clustered(**wa)) for wa in (by_session, random)]
        rows.append([title, *cells, "{:.2f} / {:.2f}".format(*paper) if paper else ""])
    header = ["", "WA, speakers held out", "WA, random folds", "the paper: WA / UA, random split, all data"]
    print("\n" + markdown_table(header, rows))
    source(name)


def section(name: str, file: str, heading: str) -> None:
    """What is below a heading of a recorded Markdown file; table rows without a result are left out."""
    lines = result(name)["files"][file]
    start = lines.index(heading) + 1
    stop = next((i for i in range(start, len(lines)) if lines[i].startswith("#")), len(lines))
    kept = [line for line in lines[start:stop] if "| missing |" not in line and not line.startswith("![")]
    print("\n" + "\n".join(kept).strip() + "\n")


def _lines(name: str, first: str, last: str) -> list[str]:
    lines = result(name)["output"]
    lines = lines[_find(name, lines, first) :]
    return lines[: _find(name, lines, last) + 1] if last else lines


def _find(name: str, lines: list[str], beginning: str) -> int:
    found = [number for number, line in enumerate(lines) if line.startswith(beginning)]
    if not found:
        raise ValueError(f"{name}.json: no line of its output begins with {beginning!r}")
    return found[0]


def main() -> int:
    options = ["cog", "--markers=<!--[ ]--> <!--end-->", "-P", "-p", "from docs.generate import *", "-I", str(ROOT)]
    message = "run: .venv/bin/python -m docs.generate"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if a page is out of date, and write nothing")
    check = ["--check", f"--check-fail-msg={message}"] if parser.parse_args().check else ["-r"]
    return Cog().main([*options, "--verbosity=1", *check, *map(str, PAGES)])


if __name__ == "__main__":
    sys.exit(main())
