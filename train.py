"""Train one configuration over several seeds and print mean ± std beside the paper's numbers."""

import argparse
from pathlib import Path

from utils.cli import add_config_options, add_shared_options, parse_shared_options, read_setup
from utils.config import display_name, run_name
from utils.device import describe
from utils.engine import build_model
from utils.errors import run_main
from utils.experiment import Experiment, open_run, train_run
from utils.feature_info import read_info
from utils.graph_data import find_neighbors, prepare
from utils.prediction.joining import GRAPH_FILE, save_training_graph
from utils.report import config_lines, graph_line, results_table


def parse_args() -> tuple[argparse.Namespace, dict]:
    """The options of the run, and those of the configuration that were given."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add_shared_options(parser)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    existing.add_argument("--overwrite", action="store_true", help="train again where the run folder exists")
    add_config_options(parser.add_argument_group("configuration"))
    return parse_shared_options(parser)


def main() -> None:
    args, options = parse_args()
    setup = read_setup(args, options)
    config, splits, names, device = setup.config, setup.splits, setup.class_names, setup.device
    folder = Path(args.save_path) / config.dataset / (args.model_name or run_name(config))
    experiment = Experiment(config, folder, splits, names, device)

    print(f"run folder {folder}\ndevice {describe(device)}\nconfiguration")
    print(config_lines(config))
    parameters = sum(p.numel() for p in build_model(config, *experiment.dims, len(names)).parameters())
    print(f"classes {', '.join(names)}\nembeddings text {experiment.dims[0]}, audio {experiment.dims[1]}")
    print(f"parameters {parameters:,}")
    open_run(experiment, args.seeds, args.resume, args.overwrite)
    nodes = find_neighbors(splits["train"], config)
    info = read_info(splits["train"].path) or {}
    save_training_graph(folder / GRAPH_FILE, nodes, info.get("encoders", {}), splits["train"].sha256)
    train = nodes.to(device).graph_data(config)
    val = prepare(splits["val"], config, device, splits["train"])
    print(graph_line("train", train.graph, train.label))
    print(graph_line("val", val.graph, val.label))

    per_seed = train_run(experiment, args.seeds, train, val)
    title = f"\n{display_name(config.dataset)} test, {len(splits['test'])} utterances, run {folder.name} (percent)"
    print(results_table(config, "test", {f"seed {seed}": metrics["test"] for seed, metrics in per_seed.items()}, title))
    print(f"\nsaved in {folder}: a folder a seed, summary.json, training_curves.png")
    print(f"evaluate with: bash run_eval.sh {folder}")


if __name__ == "__main__":
    run_main(main)
