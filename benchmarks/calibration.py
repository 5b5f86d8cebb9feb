"""Compare a run's probabilities with the true ones of DEMO: the Bayes posterior given the whole scenes.

    bash run_training.sh DEMO && python -m benchmarks.calibration

Prints the scores of the plain probabilities, the temperature-scaled probabilities and the posterior, and the distances
of the first two from the posterior. The scores are for the test split, as mean ± std over the seeds of the latest run.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.special import rel_entr

from utils.cli import add_device_option
from utils.config import default_save_path
from utils.data.demo import demo_posterior
from utils.device import open_device
from utils.errors import InputError, run_main
from utils.io import align
from utils.training.calibration import SCORES, probabilities
from utils.training.evaluation import evaluate_all, load_all, load_graph
from utils.training.metrics import plus_minus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", default="DEMO", help="DEMO (uses its latest run), or a run of DEMO")
    parser.add_argument("--save_path", default=default_save_path(), help="root of the run folders")
    add_device_option(parser)
    args = parser.parse_args()
    folder, trained = load_all(args.target, Path(args.save_path), False, None, {})
    if trained[0].config.dataset != "DEMO":
        raise InputError(f"{folder}: a run of {trained[0].config.dataset}; the posterior is known for DEMO only")
    device = open_device(args.device, trained[0].config.matmul_precision)
    features, data = load_graph(trained[0], "test", None, False, device)
    _, logits = evaluate_all(trained, data, device)
    plain = np.stack([probabilities(logits[each.name]) for each in trained])
    scaled = np.stack([probabilities(logits[each.name], each.temperature) for each in trained])
    truth = demo_posterior(features.text.numpy(), features.audio.numpy())
    label = features.label.numpy()

    print(f"{folder}: {len(trained)} seeds, temperature {summary(np.array([each.temperature for each in trained]))}")
    rows = [("", "plain", "scaled", "posterior")]
    for name, score in SCORES.items():
        rows.append((name, *(summary(score(each, label)) for each in (plain, scaled, truth[None]))))
    distances = {
        "mean absolute difference from the posterior": lambda each: np.abs(each - truth).mean((1, 2)),
        "KL divergence of the posterior from it (nats)": lambda each: rel_entr(truth, each).sum(-1).mean(-1),
    }
    for name, distance in distances.items():
        rows.append((name, summary(distance(plain)), summary(distance(scaled)), "0"))
    print("\n".join(align(rows)))


def summary(values: np.ndarray) -> str:
    return plus_minus(values.mean(), values.std(ddof=1) if len(values) > 1 else None, 4)


if __name__ == "__main__":
    run_main(main)
