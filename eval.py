"""Evaluate saved checkpoints: metrics, calibration, results by group and figures. Only the path is required."""

import argparse
from pathlib import Path

from models.config import FUSIONS
from utils.cli import add_device_option
from utils.config import PROFILES, SPLITS, default_save_path, display_name
from utils.errors import printable, reading, run_main
from utils.io import write_json

OFFICIAL_OPTIONS = ("dataset", "fusion_type", "k_text", "k_audio")


def parse_args() -> tuple[argparse.Namespace, dict]:
    """The options of the command, and those given for a checkpoint of the published code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "target",
        nargs="?",
        default="DEMO",
        help="dataset (its latest run), run or seed folder, .pt file, or the name of a published checkpoint",
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="split to evaluate (default: test)")
    parser.add_argument("--test_path", help="feature pickle of the split (default: the one named in the checkpoint)")
    parser.add_argument("--save_path", default=default_save_path(), help="root of the run folders")
    parser.add_argument("--download", action="store_true", help="fetch the published checkpoint and features")
    parser.add_argument("--out", help="folder of the results (default: eval next to the checkpoints)")
    add_device_option(parser)
    official = parser.add_argument_group("checkpoints of the published code")
    official.add_argument("--profile", choices=PROFILES, help="official: the target is a plain state dict")
    official.add_argument("--dataset", help="default: from the file's name")
    official.add_argument("--fusion_type", choices=FUSIONS, help="default: from the file's name, otherwise min")
    official.add_argument("--k_text", type=int, help="default: the dataset's")
    official.add_argument("--k_audio", type=int, help="default: the dataset's")
    args = parser.parse_args()
    return args, {name: getattr(args, name) for name in OFFICIAL_OPTIONS if getattr(args, name) is not None}


def main() -> None:
    args, options = parse_args()
    # torch and its dependents take seconds to import; --help and option errors do not wait for them
    import numpy as np

    from utils.data.features import info_path, read_info
    from utils.data.leakage import leakage_lines
    from utils.device import describe, pick_device, set_matmul_precision
    from utils.training.calibration import calibration_results, calibration_table, probabilities
    from utils.training.evaluation import compare_with_training, draw, evaluate_all, load_all, load_graph
    from utils.training.groups import group_lines, group_results, write_groups
    from utils.training.metrics import recall_table, results_table
    from utils.training.predictions import write_predictions

    folder, trained = load_all(args.target, Path(args.save_path), args.download, args.profile, options)
    first = trained[0]
    config = first.config
    device = pick_device(args.device)
    if device.type == "cuda":  # on a CPU, a model trained in TF32 is evaluated in float32
        set_matmul_precision(config.matmul_precision, device)
    features, data = load_graph(first, args.split, args.test_path, args.download, device)
    print(f"{len(trained)} checkpoint{'s' * (len(trained) > 1)} of {folder}\nfeatures {printable(str(features.path))}")
    print(f"device {describe(device)}\n{data.line(args.split)}")
    if args.split == "test" and (info := read_info(features.path)):
        with reading(info_path(features.path), "its leakage report is damaged"):
            print(leakage_lines(info["leakage"]))

    results, logits = evaluate_all(trained, data, device)
    for each in trained:
        compare_with_training(each, results[each.name], features, args.split)
    run = first.path.name if first.seed is None else f"run {first.run_folder.name}"
    name = f"{display_name(config.dataset)} {args.split}, {run}"
    print(results_table(config, args.split, results, f"\n{name}, {len(features)} utterances (percent)"))
    print("\n" + recall_table(first.class_names, results))

    label = features.label.numpy()
    temperatures = {each.name: each.temperature for each in trained}
    probability = {
        "plain": np.stack([probabilities(of_model) for of_model in logits.values()]),
        "scaled": np.stack([probabilities(logits[name], temperatures[name]) for name in logits]),
    }
    calibration = calibration_results(temperatures, *probability.values(), label)
    fitted_here = first.data.get("val", {}).get("sha256") == features.sha256
    print("\n" + calibration_table(calibration, fitted_here))

    out = Path(args.out) if args.out else folder / ("eval" if first.seed is not None else f"{first.path.stem}_eval")
    prediction = np.stack([of_model.argmax(1).cpu().numpy() for of_model in logits.values()])
    groups = group_results(features.identity, label, prediction, first.class_names)
    print("\n".join(group_lines(groups, f"{args.split}_groups.csv")))
    contents = {"features": str(features.path), "class_names": first.class_names, **results}
    tables = [f"{args.split}.json", f"{args.split}_groups.csv"]
    write_json(out / tables[0], {**contents, "calibration": calibration, "groups": groups})
    write_groups(out / tables[1], groups)
    if args.split == "train" or first.data.get(args.split, {}).get("sha256") != features.sha256:
        for each, of_model in zip(trained, probability["scaled"], strict=True):  # the seed folders do not have them
            tables.append(f"{args.split}_{each.name.replace(' ', '')}_predictions.csv")
            write_predictions(out / tables[-1], features.identity, first.class_names, label, of_model)
    figures = draw(out, args.split, trained, results, probability, data, name)
    print(f"\nsaved in {out}: {', '.join(tables)}; as PNG and PDF: {', '.join(figures)}")


if __name__ == "__main__":
    run_main(main)
