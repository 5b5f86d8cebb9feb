"""Train one configuration over several seeds and print mean ± std beside the paper's results."""

import argparse
from pathlib import Path

import torch

from models.cemobam import CemoBAM
from utils.cli import (
    add_config_options,
    add_shared_options,
    config_lines,
    load_training,
    open_device,
    parse_shared_options,
)
from utils.config import display_name, run_name
from utils.data.features import read_info
from utils.device import describe
from utils.errors import run_main
from utils.training.folder import read_curves, save_training_graph
from utils.training.metrics import results_table
from utils.training.run import Progress, Run, Trial, claim, open_runs, summarise, train_run


def parse_args() -> tuple[argparse.Namespace, dict]:
    """The options of the command, and the given ones of the configuration."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add_shared_options(parser)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="resume an interrupted run")
    existing.add_argument("--overwrite", action="store_true", help="train again where the run folder exists")
    add_config_options(parser.add_argument_group("configuration"))
    return parse_shared_options(parser)


def main() -> int:
    args, options = parse_args()
    config, data = load_training(args, options)
    device = open_device(args.device, config)
    trial = Trial(config, Path(args.save_path) / config.dataset / (args.model_name or run_name(config)))
    runs = [Run(trial, seed, data) for seed in args.seeds]

    print(f"run folder {trial.folder}\ndevice {describe(device)}\nconfiguration\n{config_lines(config)}")
    with torch.device("meta"):  # counted, not allocated
        model = CemoBAM(config.model, *data.dims, len(data.class_names))
    print(f"classes {', '.join(data.class_names)}\nembeddings text {data.dims[0]}, audio {data.dims[1]}")
    print(f"parameters {sum(p.numel() for p in model.parameters()):,}")
    open_runs(runs, args.resume, args.overwrite)
    for split in ("train", "val"):
        print(data.graph(split, config, device).line(split))
    train = data.splits["train"]
    encoders = (read_info(train.path) or {}).get("encoders", {})
    k = config.k_text, config.k_audio
    save_training_graph(trial.folder, train, data.lists("train", config), k, encoders)

    with Progress(runs) as progress:
        for run in claim(runs, progress):
            train_run(run, device, progress)
    return report(trial, runs)


def report(trial: Trial, runs: list[Run]) -> int:
    """Print the results of all finished seeds and draw their curves. Returns the exit code."""
    from utils.plots import plot_training_curves  # matplotlib takes a second to import, which only this needs

    config, data = trial.config, runs[0].data
    per_seed = summarise(trial, data.class_names)
    if per_seed:
        title = f"\n{display_name(config.dataset)} test, {len(data.splits['test'])} utterances, run {trial.folder.name}"
        results = {f"seed {seed}": metrics["test"] for seed, metrics in per_seed.items()}
        print(results_table(config, "test", results, f"{title} (percent)"))
        curves = {f"seed {seed}": read_curves(Run(trial, seed).folder, config.epochs) for seed in per_seed}
        selected = {f"seed {seed}": metrics["selected_epoch"] for seed, metrics in per_seed.items()}
        title = f"{display_name(config.dataset)}, run {trial.folder.name}"
        plot_training_curves(trial.folder / "training_curves.png", curves, selected, title)
        print(f"\nsaved in {trial.folder}: one folder per seed, summary.json, training_curves.png")
        print(f"evaluate with: bash run_eval.sh {trial.folder}")
    failed = [run for run in runs if not run.finished]
    for run in failed:
        print(f"failed: {run}: {run.error()}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
