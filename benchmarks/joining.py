"""How predict.py's answers, one utterance at a time, differ from evaluating a whole split, whose utterances are each
other's neighbours; and what a missing transcript costs.

    python -m benchmarks.joining checkpoints/IEMOCAP/paper
"""

import argparse
from pathlib import Path

import torch

from utils.checkpoints import find_checkpoints, load_run, load_split
from utils.config import default_save_path
from utils.errors import run_main
from utils.features import SPLITS
from utils.graph import homophily
from utils.graph_data import prepare
from utils.metrics import compute_metrics, mean_and_std
from utils.prediction.joining import Joining, Predictor, load_training_graph
from utils.report import align, graph_line


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder, or dataset")
    parser.add_argument("--split", choices=SPLITS[1:], default="test")
    args = parser.parse_args()
    _, paths = find_checkpoints(args.run, Path(default_save_path()))
    trained = load_run(paths)
    config, names = trained[0].config, trained[0].class_names
    graph = load_training_graph(trained[0])
    features, train = (load_split(trained[0], split) for split in (args.split, "train"))
    data = prepare(features, config, torch.device("cpu"), train)
    predictor = Predictor(trained, graph, torch.device("cpu"))

    whole = torch.stack([each.model(data.text, data.audio, data.graph)[data.context :] for each in trained]).softmax(-1)
    joined = predictor.each(features.text, features.audio)
    without = predictor.each(graph.text.mean(0).expand(len(features), -1), features.audio)

    print(graph_line(args.split, data.graph, data.label))
    nodes, joining = Joining(graph, config)(features.text, features.audio)
    same = homophily(joining, torch.cat([train.label[nodes], features.label]))
    print(f"joined to train, one by one: homophily {same:.3f}")
    ways = {"whole split": whole, "joined": joined, "joined, no transcript": without}
    figures = {name: [figures_of(each, features.label, len(names)) for each in ways[name]] for name in ways}
    agree = [100 * (a.argmax(1) == b.argmax(1)).float().mean().item() for a, b in zip(whole, joined, strict=True)]
    together = {name: figures_of(each.mean(0), features.label, len(names)) for name, each in ways.items()}
    rows = [("percent", "WA, mean of seeds", "UA", "WA, mean of probabilities", "UA")]
    for name in ways:
        mean, std = mean_and_std(figures[name])
        cells = [f"{100 * mean[f]:.2f}" + (f" ± {100 * std[f]:.2f}" if std else "") for f in ("wa", "ua")]
        rows.append((name, *cells, *(f"{100 * together[name][f]:.2f}" for f in ("wa", "ua"))))
    print("\n".join(align(rows)))
    both = 100 * (whole.mean(0).argmax(1) == joined.mean(0).argmax(1)).float().mean().item()
    each = ", ".join(f"{value:.1f}" for value in agree)
    print(f"agreement of joined with whole split: {each} percent a seed, {both:.1f} by mean probabilities")


def figures_of(probabilities: torch.Tensor, label: torch.Tensor, num_classes: int) -> dict:
    return compute_metrics(label, probabilities.argmax(1), num_classes)


if __name__ == "__main__":
    run_main(main)
