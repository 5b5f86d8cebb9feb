"""Compare inductive inference of predict.py with the graph of a whole split of eval.py.

    python -m benchmarks.inductive checkpoints/IEMOCAP/paper

predict.py attaches one utterance at a time. In eval.py, the utterances of a split are neighbours of each other. The
cost of a missing transcript is printed as well.
"""

import argparse
from pathlib import Path

import torch

from utils.config import SPLITS, default_save_path
from utils.errors import run_main
from utils.io import align
from utils.prediction.inductive import Attachment, Predictor, edges_into_new, load_training_graph
from utils.training.graph import edge_homophily, prepare
from utils.training.metrics import compute_metrics, mean_and_std
from utils.training.trained import Trained, find_checkpoints, load_run, load_split


@torch.inference_mode()
def main() -> None:
    args, trained = parse_run(__doc__)
    config, names = trained[0].config, trained[0].class_names
    graph = load_training_graph(trained[0])
    features, train = (load_split(trained[0], split) for split in (args.split, "train"))
    data = prepare(features, config, torch.device("cpu"), train)
    predictor = Predictor(trained, graph, torch.device("cpu"))

    whole = torch.stack([each.model(data.text, data.audio, data.graph)[data.context :] for each in trained]).softmax(-1)
    attached = predictor.each(features.text, features.audio)
    without = predictor.each(graph.text.mean(0).expand(len(features), -1), features.audio)

    print(data.line(args.split))
    nodes, attached_graph = edges_into_new(Attachment(graph, config)(features.text, features.audio).any(0))
    same = edge_homophily(attached_graph, torch.cat([train.label[nodes], features.label]))
    print(f"attached to train one by one: homophily {same:.3f}")
    ways = {"whole split": whole, "attached": attached, "attached, no transcript": without}
    metrics = {name: [metrics_of(each, features.label, len(names)) for each in ways[name]] for name in ways}
    agree = [100 * (a.argmax(1) == b.argmax(1)).float().mean().item() for a, b in zip(whole, attached, strict=True)]
    together = {name: metrics_of(each.mean(0), features.label, len(names)) for name, each in ways.items()}
    rows = [("percent", "WA, mean of seeds", "UA", "WA, mean of probabilities", "UA")]
    for name in ways:
        mean, std = mean_and_std(metrics[name])
        cells = [f"{100 * mean[f]:.2f}" + (f" ± {100 * std[f]:.2f}" if std else "") for f in ("wa", "ua")]
        rows.append((name, *cells, *(f"{100 * together[name][f]:.2f}" for f in ("wa", "ua"))))
    print("\n".join(align(rows)))
    both = 100 * (whole.mean(0).argmax(1) == attached.mean(0).argmax(1)).float().mean().item()
    each = ", ".join(f"{value:.1f}" for value in agree)
    print(f"agreement of attached with whole split: {each} percent per seed, {both:.1f} by mean probabilities")


def parse_run(description: str) -> tuple[argparse.Namespace, list[Trained]]:
    """Parse ``run`` and ``--split``, and load the seeds of the run; ``description`` is the help of the command."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder, or dataset")
    parser.add_argument("--split", choices=SPLITS[1:], default="test")
    args = parser.parse_args()
    _, paths = find_checkpoints(args.run, Path(default_save_path()))
    return args, load_run(paths)


def metrics_of(probabilities: torch.Tensor, label: torch.Tensor, num_classes: int) -> dict:
    return compute_metrics(label, probabilities.argmax(1), num_classes)


if __name__ == "__main__":
    run_main(main)
