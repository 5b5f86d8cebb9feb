"""Does a graph over neighbours help? CemoBAM with and without CH-GAT, over k and the scope of the graph, by folds.

    python -m benchmarks.graph IEMOCAP --splits val --seeds 42 --download

Decided before it was run. Networks: profiles paper and refined, without CH-GAT and with it. With CH-GAT, k is 1, 3 or
the dataset's default, and the graph contains either one split or the split and the training utterances. Folds: by
session (otherwise by speaker) and at random. For each profile and division into folds, validation WA selects one of the
six graphs. **A graph helps if the gain in test WA of the selected graph over the same network without CH-GAT has a 95 %
interval above 0.** The other gains are printed, but are not the answer: of 24 intervals, one excludes 0 by chance.

The table also has the homophily: of the edges into test utterances from another utterance, the share that connects
equal labels. Finished runs are kept and shared with ``reproduce.sh --parts folds``. The same command resumes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from utils.cli import add_device_option, add_feature_options, add_jobs_option
from utils.config import DATASETS, SEEDS, Config, default_save_path, make_config
from utils.device import open_device
from utils.errors import run_main
from utils.folds.config import POOLED
from utils.folds.protocol import VAL, Protocol, choose_by, divide, read_pool
from utils.folds.report import RowResult, collect
from utils.folds.run import Row, cross_validate
from utils.io import markdown_table
from utils.statistics import with_interval

PROFILES = ("paper", "refined")
SCOPES = {"split": "split", "with_train": "split and train"}
HEADER = ["profile", "k", "graph of", "homophily (%)", "val WA", "test WA", "gain by CH-GAT"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--splits", nargs="+", choices=POOLED, default=[], help="pickles to pool (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    add_feature_options(parser)
    add_device_option(parser)
    add_jobs_option(parser)
    args = parser.parse_args()
    pool = read_pool(args.dataset, Path(args.feature_dir), args.splits, args.download)
    root = Path(default_save_path()) / "reproduction" / args.dataset
    grouped = divide(pool, root, choose_by(pool), "group")
    protocols = [grouped, divide(pool, root, "random", "group", len(grouped.folds))]
    rows = {profile: rows_of(args.dataset, profile) for profile in PROFILES}
    everything = [row for of_profile in rows.values() for row in of_profile]
    failed = cross_validate(protocols, everything, args.seeds, open_device(args.device), args.jobs)
    if failed:
        print("\n".join(f"failed: {line}" for line in failed))
        return 1
    results = collect(protocols, everything, args.seeds)
    for protocol in protocols:
        lines = [line for each in rows.values() for line in compare(protocol, each, results[protocol.by], args.seeds)]
        print(f"\n{protocol.title}; selected on validation: in bold\n\n{markdown_table(HEADER, lines)}")
    return 0


def rows_of(dataset: str, profile: str) -> list[Row]:
    """The network without CH-GAT, then the network with each graph."""
    base = make_config({"dataset": dataset, "profile": profile})
    default = DATASETS.get(dataset, DATASETS["IEMOCAP"])
    options = [
        {"k_text": k_text, "k_audio": k_audio, "graph_scope": scope}
        for scope in SCOPES
        for k_text, k_audio in ((1, 1), (3, 3), (default.k_text, default.k_audio))
    ]
    configs = [base.replace(ablation="no_chgat"), *(base.replace(**each) for each in options)]
    return [Row(f"{profile} {number}", config) for number, config in enumerate(configs)]


def compare(
    protocol: Protocol, rows: Sequence[Row], results: dict[str, RowResult], seeds: Sequence[int]
) -> list[list[str]]:
    """One line of the table for each row of one profile. The first row is the network without CH-GAT."""
    without = results[rows[0].title]
    val = [100 * validation_wa(protocol, row, seeds) for row in rows]
    selected = 1 + val[1:].index(max(val[1:]))
    lines = []
    for number, row in enumerate(rows):
        config, result = row.source, results[row.title]
        graph, gain = ["–", "w/o CH-GAT", ""], None
        if result is not without:
            share = f"{100 * homophily(protocol, config):.1f}"
            graph = [f"{config.k_text}, {config.k_audio}", SCOPES[config.graph_scope], share]
            gain = result.minus(without, "wa")
        cells = [config.profile, *graph, f"{val[number]:.2f}", with_interval(result.estimate("wa"))]
        cells.append(with_interval(gain, sign=True) if gain else "")
        lines.append([f"**{cell}**" for cell in cells] if number == selected else cells)
    return lines


def validation_wa(protocol: Protocol, row: Row, seeds: Sequence[int]) -> float:
    """WA of all validation utterances at the evaluated epochs, averaged over the seeds."""
    sizes = {fold: len(protocol.rows(fold, VAL)) for fold in protocol.folds}
    runs = row.runs(protocol, seeds)
    hits = sum(sizes[int(run.trial.folder.name.removeprefix("fold"))] * run.outcome()["val"]["wa"] for run in runs)
    return hits / len(seeds) / sum(sizes.values())


def homophily(protocol: Protocol, config: Config) -> float:
    """Share of edges that connect equal labels, of the edges into test utterances from another utterance."""
    equal = []
    for fold in protocol.folds:
        data = protocol.data[fold].graph("test", config, torch.device("cpu"))
        source, target = data.graph.edge_index[:, data.graph.source != data.graph.target]
        into = target >= data.context
        equal.append((data.label[source] == data.label[target])[into])
    return torch.cat(equal).float().mean().item()


if __name__ == "__main__":
    run_main(main)
