"""The trials of the reproduction and their training: Tables I and II, ablation steps, DEMO over homophily, Fig. 2."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, product
from pathlib import Path

import torch

from utils.config import (
    OFFICIAL_TO_PAPER,
    PAPER_TO_REFINED,
    PARTS,
    PROFILES,
    SPLITS,
    Config,
    display_name,
    feature_path,
    make_config,
    run_name,
)
from utils.data.demo import AGREEMENT, write_demo
from utils.data.published import find_features
from utils.folds.config import POOLED
from utils.sweep.config import K_VALUES, as_published, sweep_name
from utils.sweep.run import grid_runs, run_sweep
from utils.training.folder import SEED_FOLDER
from utils.training.graph import TrainingData
from utils.training.jobs import train_here
from utils.training.loop import embed
from utils.training.metrics import PRINTED
from utils.training.probes import PROBES, Probe, fit_probe
from utils.training.run import Progress, Run, Trial, open_runs, update_summary
from utils.training.trained import load_trained

# The rows of Tables I and II: (fusion_type, ablation) -> title
MAIN, NO_XCBAM, NO_CHGAT = ("min", "none"), ("min", "no_xcbam"), ("min", "no_chgat")
FUSIONS = {MAIN: "MIN", ("cls", "none"): "CLS", ("max", "none"): "MAX", ("mean", "none"): "MEAN"}
ABLATIONS = {
    MAIN: "CemoBAM",
    NO_XCBAM: "w/o xCBAM",
    NO_CHGAT: "w/o CH-GAT",
    ("min", "no_cbam"): "w/o CBAM (HemoGAT's head)",
    ("min", "no_chgat_no_cbam"): "w/o CH-GAT and CBAM (MemoCMT's head)",
    ("min", "text_only"): "text alone",
    ("min", "audio_only"): "audio alone",
}
FOLDED = {row: title for row, title in ABLATIONS.items() if "cbam" not in row[1] or row == NO_XCBAM}
STEPPED = (MAIN, NO_XCBAM)  # the networks on which the ablation steps are trained
AGREEMENTS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)  # of DEMO's scenes; homophily grows with it


@dataclass(frozen=True)
class Plan:
    """Everything that is trained and reported, in folders below ``root``.

    Attributes:
        feature_dir: folder of the feature pickles; those of DEMO are generated below ``root``.
        shared: options that replace the profile's in every configuration, such as ``epochs`` with ``--quick``.
        k_values: values of k_text and of k_audio in Fig. 2.
        agreements: agreements of DEMO's scenes for the gain over homophily.
        splits: names of the feature pickles that cross-validation pools, from :data:`~utils.folds.config.POOLED`;
            empty for all that exist.
        folds: number of folds of the cross-validation; None for one per session or speaker.
    """

    root: Path
    feature_dir: Path
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    profiles: tuple[str, ...] = tuple(PROFILES)
    shared: dict = field(default_factory=dict)
    k_values: tuple[int, ...] = K_VALUES
    agreements: tuple[float, ...] = AGREEMENTS
    splits: tuple[str, ...] = ()
    folds: int | None = None

    @property
    def is_of_the_profiles(self) -> bool:
        """Whether ``shared`` leaves every profile unchanged on every dataset."""
        configs = [self.config(dataset, profile) for dataset in self.datasets for profile in self.profiles]
        return all(run_name(config) == config.profile for config in configs)

    def config(self, dataset: str, profile: str, **options: object) -> Config:
        return make_config({"dataset": dataset, "profile": profile, **self.shared, **options})

    def folder(self, dataset: str, agreement: float = AGREEMENT) -> Path:
        """The folder of a dataset's trials; DEMO has one for each agreement of its scenes."""
        return self.root / (dataset if agreement == AGREEMENT else f"{dataset}_agreement{agreement:.2f}")

    def trial(self, dataset: str, profile: str, row: tuple[str, str], agreement: float = AGREEMENT) -> Trial:
        """A row of Table I or II. Only the profile's own network keeps its weights."""
        config = self.config(dataset, profile, fusion_type=row[0], ablation=row[1])
        keep_weights = row == MAIN and agreement == AGREEMENT
        return Trial(config, self.folder(dataset, agreement) / _name(profile, row), keep_weights)

    def trials(self, datasets: Iterable[str], parts: Iterable[str] = tuple(PARTS)) -> list[Trial]:
        """The trials of some parts of the report, each once, except those of the grid (see :meth:`grid_runs`)."""
        trials = []
        for part, dataset in product(parts, datasets):
            if part == "tables":
                trials += self.tables(dataset)
            elif part == "ablation":
                trials += self.steps_between(dataset)
            elif part == "homophily" and dataset == "DEMO":
                trials += self.homophily().values()
        return list(dict.fromkeys(trials))

    def tables(self, dataset: str) -> list[Trial]:
        """The trials of Tables I and II, with those of the profiles first."""
        rows = dict.fromkeys([*FUSIONS, *ABLATIONS])
        return [self.trial(dataset, profile, row) for row in rows for profile in self.profiles]

    def ablation_steps(self, dataset: str, row: tuple[str, str]) -> list[tuple[str, Trial]]:
        """Title and trial of each step from profile official through paper to refined, one difference per step.

        The profiles are the first, a middle and the last trial, which the tables share. A step without effect is
        skipped: the channel gate without xCBAM, and options that all trials share. There are no steps for DEMO, which
        is not speech, or if a profile is not in the plan.
        """
        if dataset == "DEMO" or self.profiles != tuple(PROFILES):
            return []
        steps = OFFICIAL_TO_PAPER + PAPER_TO_REFINED
        profile, trial = "official", self.trial(dataset, "official", row)
        chain = [("profile official", trial)]
        for number, step in enumerate(steps, 1):
            profile = "paper" if step in OFFICIAL_TO_PAPER else "refined"
            end = self.trial(dataset, profile, row)
            target = end.config.to_dict()
            before, config = trial.config, trial.config.replace(**{name: target[name] for name in step.values})
            name = _name(f"step-{number:02d}-{next(iter(step.values))}", row)
            trial, title = Trial(config, self.folder(dataset) / name, keep_weights=False), step.title
            if step in (OFFICIAL_TO_PAPER[-1], PAPER_TO_REFINED[-1]):
                trial, title = end, f"{step.title} = profile {profile}"
            if config != before and ("channel_gate" not in step.values or config.model.has("xcbam")):
                chain.append((title, trial))
        return chain

    def steps_between(self, dataset: str) -> list[Trial]:
        """The trials of all ablation steps that are not in the tables."""
        tables = self.tables(dataset)
        return [trial for row in STEPPED for _, trial in self.ablation_steps(dataset, row) if trial not in tables]

    def homophily(self) -> dict[tuple[str, float, tuple[str, str]], Trial]:
        """DEMO with and without CH-GAT: by profile, agreement of the scenes, and row of Table II."""
        return {
            (profile, agreement, row): self.trial("DEMO", profile, row, agreement)
            for agreement in (self.agreements if "DEMO" in self.datasets else ())
            for profile in self.profiles
            for row in (MAIN, NO_CHGAT)
        }

    def grid_runs(
        self, dataset: str, profile: str, k_values: Iterable[int], data: TrainingData | None = None
    ) -> list[Run]:
        """Fig. 2 of a dataset and a profile; no runs for datasets that are not in the paper."""
        if dataset not in PRINTED:
            return []
        config = make_config(as_published({"dataset": dataset, "profile": profile, **self.shared}))
        k = sorted(k_values)
        return grid_runs(config, self.folder(dataset) / sweep_name(config), k, k, self.seeds, data)

    def probes(self) -> list[tuple[Probe, int]]:
        """Every probe with each of its seeds."""
        return [(probe, seed) for probe in PROBES for seed in probe.seeds(self.seeds)]

    def probe_folder(self, dataset: str, probe: Probe, seed: int) -> Path:
        return self.folder(dataset) / f"probe-{probe.name}" / SEED_FOLDER.format(seed)

    def pooled_features(self, dataset: str) -> list[Path]:
        """The feature pickles that exist, for cross-validation."""
        paths = [feature_path(self.feature_dir, dataset, split) for split in self.splits or POOLED]
        return [path for path in paths if path.is_file()]

    def missing_features(self, dataset: str) -> list[Path]:
        """The feature pickles that do not exist."""
        paths = [feature_path(self.feature_dir, dataset, split) for split in SPLITS if dataset != "DEMO"]
        return [path for path in paths if not path.is_file()]


def _name(begin: str, row: tuple[str, str]) -> str:
    """The name of a folder, without the options that all trials share."""
    options = zip(("fusion_type", "ablation"), row, MAIN, strict=True)
    return "-".join([begin, *(f"{name}={value}" for name, value, default in options if value != default)])


# ---- training --------------------------------------------------------------------------------------------------------


def read_features(plan: Plan, parts: Collection[str], download: bool, named: bool) -> dict[Path, TrainingData]:
    """Read the features of each dataset, by the folder of its trials. DEMO is generated for each agreement.

    A dataset without features is skipped, unless the datasets were ``named``.

    Raises:
        InputError: as for :func:`~utils.data.published.find_features` and :meth:`TrainingData.read`.
    """
    data = {}
    for dataset in plan.datasets:
        missing = plan.missing_features(dataset)
        if dataset == "DEMO":
            for agreement in dict.fromkeys([AGREEMENT, *(plan.agreements if "homophily" in parts else ())]):
                folder = plan.folder(dataset, agreement)
                write_demo(folder / "feature", agreement)
                paths = {split: feature_path(folder / "feature", dataset, split) for split in SPLITS}
                data[folder] = TrainingData.read(paths, dataset)
        elif missing and not (download or named):
            print(f"{dataset}: skipped, {missing[0]} does not exist (--download fetches the published features)")
        else:
            paths = find_features(dataset, plan.feature_dir, {}, download)
            data[plan.folder(dataset)] = TrainingData.read(paths, dataset)
    return data


def train(
    plan: Plan, parts: Collection[str] | None, data: dict[Path, TrainingData], device: torch.device, jobs: int
) -> list[str]:
    """Train everything: the tables of all datasets first, and the grid, which takes longest, last.

    Args:
        parts: the requested parts; None for all.
        data: the result of :func:`read_features`.
        jobs: as in :func:`~utils.training.jobs.train_here`.

    Returns:
        The failed runs, each with its error.
    """
    datasets = [dataset for dataset in plan.datasets if plan.folder(dataset) in data]
    trials = plan.trials(datasets, parts or PARTS)
    runs = [Run(trial, seed, data[trial.folder.parent]) for trial in trials for seed in plan.seeds]
    grids = [
        plan.grid_runs(dataset, profile, plan.k_values, data[plan.folder(dataset)])
        for dataset, profile in product(datasets, plan.profiles)
        if "grid" in (parts or PARTS) and dataset in PRINTED
    ]
    for part in set(parts or ()) - {"folds"}:
        if not (grids if part == "grid" else plan.trials(datasets, [part])):
            print(f"{part}: nothing to train; it needs {PARTS[part]}")
    everything = [*runs, *chain(*grids)]
    for run in everything:
        run.data.check(run.config)
    open_runs(everything)

    print(f"{len(everything)} runs, {sum(run.finished for run in everything)} of them already finished")
    train_all = partial(train_here, device=device, jobs=jobs)
    with Progress(runs, on_finish=update_summary) as progress:
        train_all(runs, progress)
    if "tables" in (parts or PARTS):
        for dataset, (probe, seed) in product(datasets, plan.probes()):
            fit_probe(probe, data[plan.folder(dataset)], seed, plan.probe_folder(dataset, probe, seed))
    for run in runs:
        if run.trial.keep_weights and run.seed == plan.seeds[0]:
            draw_tsne(run, device)
    for grid in grids:
        run_sweep(grid, grid[0].trial.folder.parent, train_all)
    return [f"{run.config.dataset}, {run}: {run.error()}" for run in everything if not run.finished]


def tsne_path(run: Run) -> Path:
    """The path of a run's t-SNE, which is in the run's folder and so removed together with its weights."""
    return run.folder / "test_tsne.png"


def draw_tsne(run: Run, device: torch.device) -> None:
    """Draw the t-SNE of a finished run, the only figure of the report that needs weights."""
    path, weights, config = tsne_path(run), run.folder / "best.pt", run.config
    if path.is_file() or not run.finished:
        return
    if not weights.is_file():
        print(f"no t-SNE of {config.dataset}, {config.profile}: {weights} does not exist")
        return
    from utils.plots import TSNE_LEAST, plot_tsne  # matplotlib takes a second to import, which only this needs

    if (count := len(run.data.splits["test"])) < TSNE_LEAST:
        print(f"no t-SNE of {config.dataset}, {config.profile}: {count} utterances, fewer than {TSNE_LEAST}")
        return
    test = run.data.graph("test", config, device)
    embeddings = embed(load_trained(weights).model.to(device), test).cpu().numpy()
    title = f"{display_name(config.dataset)} test, profile {config.profile}, seed {run.seed}"
    plot_tsne(path, embeddings, test.scored_label.cpu().numpy(), run.data.class_names, title)
