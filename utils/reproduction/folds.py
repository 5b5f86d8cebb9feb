"""Cross-validation in the report: every profile with its ablations, and the probes, by session or speaker."""

import torch

from utils.config import display_name
from utils.folds.protocol import Protocol, choose_by, divide, read_pool
from utils.folds.report import collect, reading, tables, wa_levels
from utils.folds.run import Row, cross_validate
from utils.plots import plot_folds
from utils.reproduction.trials import FOLDED, MAIN, Plan
from utils.training.probes import LINEAR, PROBES


def fold_rows(plan: Plan, dataset: str) -> list[Row]:
    """Every profile with its ablations, then the probes."""
    rows = []
    for profile in plan.profiles:
        for row, title in FOLDED.items():
            config = plan.config(dataset, profile, fusion_type=row[0], ablation=row[1])
            rows.append(Row(profile if row == MAIN else f"{profile}, {title}", config))
    return rows + [Row(probe.title, probe) for probe in PROBES]


def fold_protocols(plan: Plan, dataset: str, download: bool = False) -> list[Protocol]:
    """Folds by session or speaker, and at random; none if features, sessions and speakers are missing."""
    if dataset == "DEMO" or not (download or plan.pooled_features(dataset)):
        return []
    pool = read_pool(dataset, plan.feature_dir, plan.splits, download)
    if (by := choose_by(pool)) == "random":
        return []
    protocol = divide(pool, plan.folder(dataset), by, "group", plan.folds)
    return [protocol, divide(pool, plan.folder(dataset), "random", "group", len(protocol.folds))]


def train_folds(plan: Plan, download: bool, device: torch.device, jobs: int) -> list[str]:
    """Cross-validate every possible dataset. Returns the failed runs, each with its error."""
    failed = []
    for dataset in plan.datasets:
        if protocols := fold_protocols(plan, dataset, download and dataset != "DEMO"):
            print(f"{dataset}: folds {protocols[0].title}")
            failed += cross_validate(protocols, fold_rows(plan, dataset), plan.seeds, device, jobs)
        else:
            print(f"{dataset}: no folds, since its features are missing or do not name sessions or speakers")
    return failed


def folds(plan: Plan, dataset: str) -> str:
    """The section of a dataset; "" if nothing is finished."""
    if not any(plan.folder(dataset).glob("folds-*/folds.csv")):
        return ""
    protocols, rows = fold_protocols(plan, dataset), fold_rows(plan, dataset)
    results = collect(protocols, rows, plan.seeds)
    if not any(results.values()):
        return ""
    levels = wa_levels(protocols, results)
    name = f"figures/{dataset}-folds.png"
    titles = [row.title for row in rows if any(row.title in each for each in levels.values())]
    plot_folds(plan.root / name, levels, titles, f"{display_name(dataset)}: test WA of all utterances")
    found = [each.replace("## ", "#### ", 1) for each in tables(protocols, rows, results, LINEAR.title)]
    head = f"### {dataset}: cross-validation"
    return "\n\n".join([head, reading(protocols, plan.seeds), *found, f"![Folds]({name})"])
