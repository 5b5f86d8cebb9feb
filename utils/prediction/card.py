"""The model card of an exported run: its description, tests and limits. Every number comes from the run's files."""

from pathlib import Path

import numpy as np
from huggingface_hub import EvalResult, ModelCardData

from utils.config import SPLITS, changed_options, display_name
from utils.data.config import GROUPED
from utils.data.features import encoder_name, info_path
from utils.data.leakage import leakage_lines
from utils.errors import reading
from utils.io import markdown_table
from utils.prediction.facts import Facts
from utils.statistics import FEWEST, bounds, over_seeds, points
from utils.training.calibration import BINS, expected_calibration_error
from utils.training.groups import group_lines
from utils.training.metrics import METRICS, mean_and_std, plus_minus

GROUPS_FILE = "test_groups.csv"
ABSENT = "not recorded"
_HUB_METRICS = {"wa": "accuracy", "ua": "recall", "w_f1": "f1", "macro_f1": "f1"}  # the hub's type of each metric


def model_card(facts: Facts) -> str:
    """The card as Markdown, after the metadata for the Hugging Face hub.

    Raises:
        InputError: the JSON of the features is damaged.
    """
    sections = [_what_it_is(facts), _how_to_use()]
    features = Path(facts.trained[0].data["train"]["path"])
    with reading(info_path(features) or features, "not the description of these features"):
        sections += [part(facts) for part in (_data, _metrics, _groups, _calibration, _leakage, _limits)]
    return "\n\n".join([f"---\n{_metadata(facts)}\n---", *sections]) + "\n"


def _metadata(facts: Facts) -> str:
    first = facts.trained[0]
    mean, _ = mean_and_std([each["test"] for each in facts.metrics])
    results = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=first.config.dataset,
            dataset_name=display_name(first.config.dataset),
            dataset_split="test",
            metric_type=_HUB_METRICS[name],
            metric_name=f"{title} (percent)",
            metric_value=round(100 * mean[name], 2),
        )
        for name, title in METRICS.items()
    ]
    data = ModelCardData(
        library_name="cemobam",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "multimodal", "graph-attention"],
        base_model=[each["name"].partition("@")[0] for each in facts.encoders.values() if each["revision"]] or None,
        model_name=first.run_folder.name,
        eval_results=results,
    )
    return data.to_yaml()


def _what_it_is(facts: Facts) -> str:
    first = facts.trained[0]
    config, train = first.config, first.data["train"]["utterances"]
    k_text, k_audio = config.neighbors
    count = len(facts.trained)
    models = f"averaged over {count} models, one per seed" if count > 1 else "those of one model"
    rows = [
        (
            modality,
            encoder_name(each) if each["revision"] else f"`{modality}_encoder/`",
            each["pooling"],
            each["weights_sha256"][:16],
        )
        for modality, each in facts.encoders.items()
    ]
    return "\n\n".join(
        [
            f"# CemoBAM, {display_name(config.dataset)}, run {first.run_folder.name}",
            f"Speech emotion recognition from a recording and its transcript: {_cell(', '.join(first.class_names))}. "
            "A graph attention branch and a cross-modal branch process the embeddings of an audio encoder and a text "
            f"encoder. A new utterance is attached to its {k_text} nearest text neighbours and its {k_audio} nearest "
            f"audio neighbours among the {train} training utterances. The probabilities are {models}.",
            markdown_table(("encoder", "hub name and revision, or folder", "pooling", "SHA-256 of its weights"), rows)
            if rows
            else f"Encoders: {ABSENT}.",
        ]
    )


def _how_to_use() -> str:
    return """## How to use

```bash
python predict.py --checkpoint FOLDER --wav recording.wav --text "what is said in it"
```

```python
import cemobam

model = cemobam.load("FOLDER")
model.predict("recording.wav", text="what is said in it")
```

Without a transcript, the mean text embedding of the training utterances is used instead."""


def _data(facts: Facts) -> str:
    first, info = facts.trained[0], facts.info
    speakers = set(facts.scored.predictions.identity["speaker"]) if facts.scored else set()
    sizes = [(split, str(first.data[split]["utterances"]), *_per_class(facts, split)) for split in SPLITS]
    changed = ", ".join(f"{name} {value}" for name, value in changed_options(first.config).items())
    lines = [
        f"- Dataset: {display_name(first.config.dataset)}" + (f", corpus {_cell(info['corpus'])}" if info else ""),
        f"- Split: {_split(info['split']) if info else ABSENT}",
        f"- Test speakers: {len(speakers - {''}) or ABSENT}",
        f"- Seeds: {', '.join(str(each.seed) for each in facts.trained)}",
        f"- Profile: {first.config.profile}" + (f", with {changed}" if changed else ""),
        f"- Epochs: {first.config.epochs}; evaluated: "
        + ", ".join(str(each["selected_epoch"]) for each in facts.metrics),
        f"- Trained on: {', '.join(dict.fromkeys(each['device'] for each in facts.metrics))}",
    ]
    table = markdown_table(("split", "utterances", *map(_cell, first.class_names)), sizes)
    return "\n\n".join(["## Data and protocol", "\n".join(lines), table])


def _per_class(facts: Facts, split: str) -> list[str]:
    """Number of utterances of each class in a split. metrics.json has the numbers of val and test."""
    names = facts.trained[0].class_names
    if facts.info:
        return [str(facts.info["files"][split]["per_class"][name]) for name in names]
    if split == "train":
        return [ABSENT] * len(names)
    return [str(sum(row)) for row in facts.metrics[0][split]["confusion"]]


def _split(split: dict) -> str:
    if split["kind"] in GROUPED:
        members = ", ".join(f"{len(split['members'][name])} in {name}" for name in SPLITS)
        return f"by {split['kind']}, fold {split['fold']} ({split['kind']}s: {members})"
    return (
        f"random, seed {split['seed']}" if split["kind"] == "random" else f"{split['kind']}, from the corpus metadata"
    )


def _metrics(facts: Facts) -> str:
    tests = [each["test"] for each in facts.metrics]
    mean, std = mean_and_std(tests)
    rows = [
        (f"seed {each.seed}", *(points(100 * test[name]) for name in METRICS))
        for each, test in zip(facts.trained, tests, strict=True)
    ]
    notes = []
    if std:
        rows.append(("mean ± std", *(plus_minus(100 * mean[name], 100 * std[name]) for name in METRICS)))
    if len(tests) < FEWEST:
        notes.append(f"There is no interval over seeds because there are fewer than {FEWEST}.")
    else:
        found = [over_seeds(100 * np.array([test[name] for test in tests])) for name in METRICS]
        rows.append(("95 % interval over seeds", *(bounds(each, each.over_seeds).strip() for each in found)))
    if facts.scored:
        kind, _ = facts.scored.clusters
        found = [facts.scored.estimate(name) for name in METRICS]
        if found[0].low is None:
            notes.append(f"There is no interval over {kind}s because there are fewer than {FEWEST}.")
        else:
            cells = (f"[{points(each.low)}, {points(each.high)}]" for each in found)
            rows.append((f"95 % interval over {found[0].clusters} {kind}s", *cells))
    else:
        notes.append(f"There is no interval over speakers because the predictions are {ABSENT}.")
    notes.append("WA is accuracy. UA is the mean recall of the classes. Speaker intervals are for the mean over seeds.")
    table = markdown_table(("test, percent", *METRICS.values()), rows)
    return "\n\n".join(["## Metrics", table, " ".join(notes)])


def _groups(facts: Facts) -> str:
    lines = ["```text", *group_lines(facts.groups, GROUPS_FILE)[1:], "```", "", f"`{GROUPS_FILE}` lists all groups."]
    return "## Results by group\n\n" + ("\n".join(lines) if facts.groups else f"Test predictions: {ABSENT}.")


def _calibration(facts: Facts) -> str:
    ece = [ABSENT] * len(facts.trained)
    if facts.scored:
        found = facts.scored.predictions
        ece = [points(100 * each) for each in expected_calibration_error(found.probability, found.label)]
    rows = [
        (f"seed {model.seed}", str(each["temperature"]), of_seed)
        for model, each, of_seed in zip(facts.trained, facts.metrics, ece, strict=True)
    ]
    note = (
        "The temperature is fitted on the validation split. ECE is the expected calibration error on the test split at "
        f"this temperature, with {BINS} bins of confidence."
    )
    return "\n\n".join(["## Calibration", markdown_table(("", "temperature", "ECE (percent)"), rows), note])


def _leakage(facts: Facts) -> str:
    lines = f"```text\n{leakage_lines(facts.info['leakage'])}\n```" if facts.info else f"{ABSENT.capitalize()}."
    return f"## Leakage between train and test\n\n{lines}"


def _limits(facts: Facts) -> str:
    first = facts.trained[0]
    shared = facts.info and facts.info["leakage"]["shared"]["speaker"]
    graph = {"split": "in their own graph", "with_train": "in one graph with train"}[first.config.graph_scope]
    lines = [
        f"- The model predicts one of the {len(first.class_names)} classes above for every recording.",
        f"- It was tested on {display_name(first.config.dataset)} only. Results may be worse for other speakers, "
        "rooms, languages and transcription styles.",
        f"- The metrics are those of the test utterances {graph}. A new utterance is attached to the training graph "
        "only.",
        "- `training_graph.safetensors` contains the embeddings, transcripts, classes and recording names of "
        f"{first.data['train']['utterances']} training utterances. The terms of their corpus decide who may have it.",
        "- The licence of these weights is not recorded.",
    ]
    if shared and shared["also_in_train"]:
        lines.append(
            f"- {shared['also_in_train']} of {shared['in_test']} test speakers are also in train. Results may be worse "
            "for other speakers."
        )
    elif not shared:
        lines.append(f"- Whether test speakers are also in train is {ABSENT}.")
    return "## Limits\n\n" + "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
