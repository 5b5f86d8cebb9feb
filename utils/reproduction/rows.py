"""What is trained for the report: each row of each table, as a configuration and a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.config import PROFILES, Config, make_config, profile_defaults
from utils.demo import AGREEMENT

FUSIONS = {"MIN": {}, "CLS": {"fusion_type": "cls"}, "MAX": {"fusion_type": "max"}, "MEAN": {"fusion_type": "mean"}}
ABLATIONS = {
    "CemoBAM": {},
    "w/o xCBAM": {"ablation": "no_xcbam"},
    "w/o CH-GAT": {"ablation": "no_chgat"},
    "w/o CBAM (HemoGAT's head)": {"ablation": "no_cbam"},
    "w/o CH-GAT and CBAM (MemoCMT's head)": {"ablation": "no_chgat_no_cbam"},
}
# Rows of Table II between whose two profiles a walk leads, and what its folders and figure are called
WALKED = {"CemoBAM": "walk", "w/o xCBAM": "walk_no_xcbam"}
# One difference between the profiles a step, in this order; together they are all of OFFICIAL.
WALK = {
    "no node in its own Top-K": ("topk_self",),
    "edges as in Eq. (2)": ("message_flow",),
    "channel gate of Eq. (3)": ("channel_gate",),
    "dropout and batch statistics at every step": ("train_mode",),
    "a LayerNorm for each GAT layer": ("gat_norm",),
    "4 heads averaged in the last GAT layer": ("gat_last_heads",),
    "a residual around every GAT layer": ("gat_residual",),
    "a learned gate on each GAT layer": ("gat_layer_scale",),
    "label smoothing": ("label_smoothing",),
    "decay every 30 epochs": ("lr_schedule", "lr_decay", "lr_patience"),
    "the best epoch on validation": ("selection",),
}
AGREEMENTS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)  # of DEMO's scenes: what turns its homophily up


@dataclass(frozen=True)
class Row:
    """A configuration trained over the seeds; a ``headline`` keeps its weights, for the confusion matrix and t-SNE."""

    dataset: str  # DEMO's variants share the name DEMO, and have folders of their own
    title: str
    config: Config
    folder: Path
    headline: bool = False


def table_rows(root: Path, dataset: str, profile: str, shared: dict) -> tuple[dict[str, Row], dict[str, Row]]:
    """Tables I and II of one profile; their first rows are the same run."""
    tables = []
    for table in (FUSIONS, ABLATIONS):
        rows = {}
        for title, options in table.items():
            config = make_config({"dataset": dataset, "profile": profile, **shared, **options})
            folder = root / dataset / _folder(profile, options)
            rows[title] = Row(dataset, f"{profile}, {title}", config, folder, headline=not options)
        tables.append(rows)
    return tables[0], tables[1]


def _folder(profile: str, options: dict) -> str:
    """A row's folder; the options that all rows share have no part in its name."""
    return "-".join([profile, *(f"{name}={value}" for name, value in options.items())])


def walk_rows(root: Path, dataset: str, of: str, shared: dict) -> dict[str, Row]:
    """From profile official to profile paper, a named difference at a time; the ends are the profiles' own rows.

    Args:
        of: title of the row that is walked, one of ``WALKED``. Without xCBAM there is no step of its channel gate.
    """
    ends = {profile: table_rows(root, dataset, profile, shared)[1][of] for profile in PROFILES}
    rows = {"profile official": ends["official"]}
    paper = profile_defaults("paper", dataset)
    options = {"dataset": dataset, "profile": "official", **shared, **ABLATIONS[of]}
    for i, (title, names) in enumerate(WALK.items(), 1):
        options |= {name: paper[name] for name in names}
        if names == ("channel_gate",) and of == "w/o xCBAM":
            continue
        folder = root / dataset / f"{WALKED[of]}-{i:02d}-{names[0]}"
        rows[title] = Row(dataset, f"walk ({of}), {title}", make_config(options), folder)
    rows[title] = ends["paper"]  # every field is profile paper's by now
    return rows


def homophily_rows(
    root: Path, profiles: Sequence[str], agreements: Sequence[float], shared: dict
) -> dict[tuple[str, float, bool], Row]:
    """DEMO with and without CH-GAT at each agreement: keyed by profile, agreement, and whether CH-GAT is in."""
    rows = {}
    for agreement in agreements:
        for profile in profiles:
            if agreement == AGREEMENT:  # DEMO as it is: rows of its own tables
                table = table_rows(root, "DEMO", profile, shared)[1]
                rows[profile, agreement, True] = table["CemoBAM"]
                rows[profile, agreement, False] = table["w/o CH-GAT"]
                continue
            for with_chgat in (True, False):
                options = {} if with_chgat else {"ablation": "no_chgat"}
                config = make_config({"dataset": "DEMO", "profile": profile, **shared, **options})
                folder = demo_folder(root, agreement) / _folder(profile, options)
                title = f"agreement {agreement:g}, {profile}, {'with' if with_chgat else 'without'} CH-GAT"
                rows[profile, agreement, with_chgat] = Row("DEMO", title, config, folder)
    return rows


def demo_folder(root: Path, agreement: float) -> Path:
    """Where the runs on DEMO with that agreement are, its features in ``feature`` beside them."""
    return root / f"DEMO_agreement{agreement:.2f}"
