"""The trials of the reproduction: Tables I and II, the ablation steps, DEMO over homophily, the grids of Fig. 2."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from utils.config import OFFICIAL_TO_PAPER, PAPER_TO_REFINED, PROFILES, Config, feature_path, make_config, run_name
from utils.data.demo import AGREEMENT
from utils.data.features import SPLITS
from utils.sweep.run import K_VALUES, as_published, grid_runs, sweep_name
from utils.training.graph import TrainingData
from utils.training.metrics import PRINTED
from utils.training.run import Run, Trial

# The rows of Tables I and II: (fusion_type, ablation) -> title
MAIN, NO_XCBAM, NO_CHGAT = ("min", "none"), ("min", "no_xcbam"), ("min", "no_chgat")
FUSIONS = {MAIN: "MIN", ("cls", "none"): "CLS", ("max", "none"): "MAX", ("mean", "none"): "MEAN"}
ABLATIONS = {
    MAIN: "CemoBAM",
    NO_XCBAM: "w/o xCBAM",
    NO_CHGAT: "w/o CH-GAT",
    ("min", "no_cbam"): "w/o CBAM (HemoGAT's head)",
    ("min", "no_chgat_no_cbam"): "w/o CH-GAT and CBAM (MemoCMT's head)",
}
STEPPED = (MAIN, NO_XCBAM)  # the networks on which the ablation steps are trained
PARTS = {  # of the report, each with what it needs
    "tables": "features",
    "ablation": "all three profiles and a dataset other than DEMO",
    "homophily": "DEMO",
    "grid": "IEMOCAP or ESD",
}
AGREEMENTS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)  # of DEMO's scenes; homophily grows with it


@dataclass(frozen=True)
class Plan:
    """Everything that is trained and reported, in folders below ``root``.

    Attributes:
        feature_dir: folder of the feature pickles; those of DEMO are made below ``root``.
        shared: options that replace the profile's in every configuration, such as ``epochs`` with ``--quick``.
        k_values: values of k_text and of k_audio in Fig. 2.
        agreements: agreements of DEMO's scenes for the gain over homophily.
    """

    root: Path
    feature_dir: Path
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    profiles: tuple[str, ...] = tuple(PROFILES)
    shared: dict = field(default_factory=dict)
    k_values: tuple[int, ...] = K_VALUES
    agreements: tuple[float, ...] = AGREEMENTS

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
        """The trials of some parts of the report, each once; those of the grid are in :meth:`grid_runs`."""
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
        """The trials of Tables I and II, those of the profiles themselves first."""
        rows = dict.fromkeys([*FUSIONS, *ABLATIONS])
        return [self.trial(dataset, profile, row) for row in rows for profile in self.profiles]

    def ablation_steps(self, dataset: str, row: tuple[str, str]) -> list[tuple[str, Trial]]:
        """Title and trial of each step from profile official over paper to refined, one named difference per step.

        The profiles are the first, a middle and the last trial, shared with the tables. Without xCBAM the step of its
        channel gate has no effect and is skipped. There are no steps on DEMO, which says nothing about speech, or
        unless all profiles are in the plan.
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
            config = trial.config.replace(**{name: target[name] for name in step.values})
            name = _name(f"step-{number:02d}-{next(iter(step.values))}", row)
            trial, title = Trial(config, self.folder(dataset) / name, keep_weights=False), step.title
            if step in (OFFICIAL_TO_PAPER[-1], PAPER_TO_REFINED[-1]):
                trial, title = end, f"{step.title} = profile {profile}"
            if "channel_gate" not in step.values or config.model.has("xcbam"):
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
        """Fig. 2 of a dataset and a profile; no runs for datasets that the paper does not have."""
        if dataset not in PRINTED:
            return []
        config = make_config(as_published({"dataset": dataset, "profile": profile, **self.shared}))
        k = sorted(k_values)
        return grid_runs(config, self.folder(dataset) / sweep_name(config), k, k, self.seeds, data)

    def missing_features(self, dataset: str) -> list[Path]:
        """The feature pickles that do not exist."""
        paths = [feature_path(self.feature_dir, dataset, split) for split in SPLITS if dataset != "DEMO"]
        return [path for path in paths if not path.is_file()]


def _name(begin: str, row: tuple[str, str]) -> str:
    """A folder's name; the options that all trials share are not part of it."""
    options = zip(("fusion_type", "ablation"), row, MAIN, strict=True)
    return "-".join([begin, *(f"{name}={value}" for name, value, default in options if value != default)])
