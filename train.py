"""Train one configuration with several seeds and print mean ± std next to the paper's results."""

import argparse
from pathlib import Path

from utils.cli import add_config_options, add_shared_options, config_lines, given_paths, parse_shared_options
from utils.config import Config, make_config, run_name
from utils.errors import run_main


def parse_args() -> tuple[argparse.Namespace, Config]:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add_shared_options(parser)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="resume an interrupted run")
    existing.add_argument("--overwrite", action="store_true", help="train again if the run folder exists")
    add_config_options(parser.add_argument_group("configuration"))
    args, options = parse_shared_options(parser)
    return args, make_config(options)


def main() -> int:
    args, config = parse_args()
    # torch and its dependents take seconds to import; --help and option errors do not wait for them
    import torch

    from models.cemobam import CemoBAM
    from utils.data.features import read_info
    from utils.device import describe, open_device
    from utils.training.folder import save_training_graph
    from utils.training.graph import TrainingData
    from utils.training.run import Progress, Run, Trial, claim, open_runs, report, train_run

    data = TrainingData.find(config, Path(args.feature_dir), given_paths(args), args.download, args.num_classes)
    device = open_device(args.device, config.matmul_precision)
    trial = Trial(config, Path(args.save_path) / config.dataset / (args.model_name or run_name(config)))
    runs = [Run(trial, seed, data) for seed in args.seeds]

    print(f"run folder {trial.folder}\ndevice {describe(device)}\nconfiguration\n{config_lines(config)}")
    with torch.device("meta"):  # counts parameters without allocating them
        model = CemoBAM(config.model, *data.dims, len(data.class_names))
    print(f"classes {', '.join(data.class_names)}\nembeddings text {data.dims[0]}, audio {data.dims[1]}")
    print(f"parameters {sum(p.numel() for p in model.parameters()):,}")
    open_runs(runs, args.resume, args.overwrite)
    for split in ("train", "val"):
        print(data.graph(split, config, device).line(split))
    train = data.splits["train"]
    encoders = (read_info(train.path) or {}).get("encoders", {})
    save_training_graph(trial.folder, train, data.lists("train", config), config.neighbors, encoders)

    with Progress(runs) as progress:
        for run in claim(runs, progress):
            train_run(run, device, progress)
    return report(trial, runs)


if __name__ == "__main__":
    run_main(main)
