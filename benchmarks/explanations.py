"""Compare attention with effect: does the neighbour with the most attention change the answer most?

Explains the utterances of a split with a trained run. Compares the attention of each neighbour with the change in the
probability of the predicted class when the neighbour is removed (docs/explain.md).

    python -m benchmarks.explanations checkpoints/IEMOCAP/paper
"""

import time
from itertools import chain

import torch
from scipy.stats import spearmanr

from benchmarks.inductive import parse_run
from utils.errors import InputError, run_main
from utils.prediction.explanation import Explanation, explain
from utils.prediction.inductive import Predictor, load_training_graph
from utils.training.trained import load_split


def main() -> None:
    args, trained = parse_run(__doc__)
    predictor = Predictor(trained, load_training_graph(trained[0]), torch.device("cpu"))
    features = load_split(trained[0], args.split)
    start = time.perf_counter()
    found = [explain(predictor, text, audio) for text, audio in zip(features.text, features.audio, strict=True)]
    seconds = (time.perf_counter() - start) / len(found)
    with_neighbors = [each for each in found if each.neighbors]
    if not with_neighbors:
        raise InputError(f"{args.run}: no utterance of {args.split} has a neighbour")
    print(f"{len(found)} utterances of {args.split}, {len(trained)} models, {seconds:.2f} s each")
    report(with_neighbors)


def report(found: list[Explanation]) -> None:
    """Print the comparison for utterances that have neighbours."""
    attention = [[each.mean_attention for each in one.neighbors] for one in found]
    effect = [[abs(one.change(each.without)) for each in one.neighbors] for one in found]
    flat = [list(chain(*each)) for each in (attention, effect)]
    mean, most = 100 * sum(flat[1]) / len(flat[1]), 100 * max(flat[1])
    first = sum(each[0] == max(each) for each in effect) / len(found)  # the first neighbour has the most attention
    chance = sum(1 / len(each) for each in effect) / len(found)
    share = sum(each[0] * (len(each) + 1) for each in attention) / len(found)
    print(f"neighbours: {len(flat[0]) / len(found):.1f} on average")
    print(f"greatest attention of a neighbour: {share:.3f} times an equal share")
    print(f"change without one: {mean:.2f} points on average, {most:.2f} at most")
    print(f"Spearman correlation of attention and size of the change: {spearmanr(*flat).statistic:.2f}")
    print(
        f"the most attended neighbour changes the answer most: {100 * first:.1f} percent (by chance {100 * chance:.1f})"
    )
    for name in ("without text", "without audio", "without graph"):
        answers = [one.answers[name] for one in found]
        other = sum(each[one.prediction] < max(each) for one, each in zip(found, answers, strict=True)) / len(found)
        size = sum(abs(one.change(each)) for one, each in zip(found, answers, strict=True)) / len(found)
        print(f"{name}: {100 * other:.1f} percent have another emotion, change {100 * size:.1f} points on average")


if __name__ == "__main__":
    run_main(main)
