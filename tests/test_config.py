import shutil
import subprocess
import sys

import pytest
import torch

from models.config import ModelConfig
from tests.conftest import ROOT, environment
from utils.config import (
    OFFICIAL_TO_PAPER,
    OPTIONS,
    PAPER_TO_REFINED,
    PROFILES,
    SEEDS,
    class_names,
    known_class_names,
    make_config,
    profile_defaults,
    read_config,
    run_name,
)
from utils.errors import InputError


def test_profiles_differ_in_the_listed_options_and_no_others():
    paper = make_config({}).to_dict()
    for profile, values in PROFILES.items():
        own = make_config({"profile": profile}).to_dict()
        differences = {name for name in OPTIONS if own[name] != paper[name]}
        assert differences - {"profile", "epochs"} == set(values) - {"epochs"}  # DEMO has its own epochs per profile
    assert list(PROFILES) == ["official", "paper", "refined"]


def test_every_difference_is_listed_once():
    steps = [step for chain in (OFFICIAL_TO_PAPER, PAPER_TO_REFINED) for step in chain]
    names = [name for step in steps for name in step.values]
    assert len(set(names)) == len(names)
    assert (len(OFFICIAL_TO_PAPER), len(PAPER_TO_REFINED)) == (5, 7)
    assert [step.title for step in steps if "(ours)" in step.title] == ["LayerScale on each GAT layer (ours)"]


def test_published_settings():
    """The settings of the published code."""
    c = make_config({"profile": "official", "dataset": "IEMOCAP"})
    m = c.model
    assert (c.epochs, c.lr, c.weight_decay, m.hidden_dim, m.heads, m.num_layers) == (100, 1e-4, 5e-4, 512, 4, 3)
    assert (c.lr_schedule, c.lr_decay, c.lr_patience, m.dropout, m.fusion_type) == ("plateau", 0.3, 15, 0.3, "min")
    assert (c.train_mode, c.selection, c.label_smoothing) == ("first_step", "last", 0.0)
    assert (m.gat_norm, m.gat_last_heads, m.gat_residual, m.gat_layer_scale) == ("shared_batch", "single", "middle", 0)
    assert (m.channel_gate, c.message_flow, c.topk_self) == ("sum_of_sigmoids", "node_to_neighbors", "drop_first")


def test_paper_settings():
    """The paper's text: lr 1e-4 and decay every 30 epochs (III.B), 3 layers and MIN (IV.D); the rest as in the code."""
    c = make_config({"dataset": "IEMOCAP"})
    m = c.model
    assert (c.lr, c.lr_schedule, c.lr_patience, m.num_layers, m.fusion_type) == (1e-4, "step", 30, 3, "min")
    assert (m.gat_last_heads, m.channel_gate, c.message_flow) == ("average", "sum_then_sigmoid", "neighbors_to_node")
    assert c.topk_self == "mask"
    assert (c.epochs, c.lr_decay, c.train_mode, c.selection, c.label_smoothing) == (100, 0.3, "first_step", "last", 0.0)
    assert (m.gat_norm, m.gat_residual, m.gat_layer_scale) == ("shared_batch", "middle", 0.0)
    assert c.profile == "paper"  # the default


def test_refined_settings():
    """Where the paper is silent, the settings that validation data or good practice supports."""
    c = make_config({"profile": "refined", "dataset": "IEMOCAP"})
    m = c.model
    assert (c.train_mode, c.selection, c.label_smoothing, c.lr_decay) == ("every_step", "best_val_wf1", 0.0, 0.9)
    assert (c.epochs, c.weight_decay, m.hidden_dim) == (200, 5e-4, 256)
    assert (c.lr, m.heads, m.num_layers) == (1e-4, 4, 3)  # as in the paper
    assert (m.gat_norm, m.gat_residual, m.gat_layer_scale) == ("layer", "projection", 0.1)
    assert (c.lr_schedule, c.lr_patience, m.gat_last_heads, m.channel_gate) == (
        "step",
        30,
        "average",
        "sum_then_sigmoid",
    )


def test_epochs_of_demo_are_those_of_the_profile():
    epochs = {profile: make_config({"profile": profile}).epochs for profile in PROFILES}
    assert epochs == {"official": 17, "paper": 12, "refined": 31}
    assert make_config({"epochs": 3}).epochs == 3
    assert profile_defaults("paper", "IEMOCAP")["epochs"] == 100


def test_the_five_seeds():
    assert SEEDS == (42, 123, 456, 789, 101112)


@pytest.mark.parametrize("dataset, k", [("IEMOCAP", (7, 8)), ("ESD", (5, 4))])
def test_best_k_of_the_paper(dataset, k):
    config = make_config({"dataset": dataset})
    assert (config.k_text, config.k_audio) == k
    assert make_config({"dataset": dataset, "k_text": 2}).k_text == 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"k_text": 0}, "--k_text 0: must be at least 1"),
        ({"heads": 0}, "--heads 0: must be at least 1"),
        ({"lr": 0.0}, "--lr 0.0: must be above 0"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"epochs": 0}, "--epochs 0"),
        ({"epochs": 2.5}, "--epochs 2.5: must be of type int"),
        ({"epochs": True}, "--epochs True: must be of type int"),
        ({"dropout": 1.0}, "--dropout 1.0: must be in [0, 1)"),
        ({"num_layers": 1}, "--num_layers 1: must be at least 2"),
        ({"hidden_dim": 30}, "--hidden_dim 30: must be a multiple of the 4 heads"),
        ({"hidden_dim": 8}, "--hidden_dim 8: must be at least 16"),
        ({"fusion_type": "sum"}, "--fusion_type sum: expected one of min, max, mean, cls"),
        ({"profile": "mine"}, "--profile mine: expected one of official, paper, refined"),
        ({"dataset": "../x"}, "--dataset ../x: must consist of letters"),
        ({"lr_decay": 0.0}, "--lr_decay 0.0: must be in (0, 1]"),
        ({"weight_decay": float("inf")}, "--weight_decay inf: must be at least 0"),
        ({"hidden_dim": 10**9}, "--hidden_dim 1000000000: must be at least 16 and at most 16384"),
        ({"heads": 2048}, "--heads 2048: must be at least 1 and at most 1024"),
        ({"num_layers": 10**6}, "--num_layers 1000000: must be at least 2 and at most 100"),
        ({"epochs": 10**12}, "--epochs 1000000000000: must be at least 1 and at most 1000000"),
        ({"lr_patience": 10**12}, "--lr_patience 1000000000000: must be at least 1 and at most 1000000"),
        ({"k_text": 10**12}, "--k_text 1000000000000: must be at least 1 and at most 1000000"),
        ({"k_audio": -(10**99)}, "--k_audio -10000000000000000...0000000000000000000: must be at least 1"),
        ({"epochs": 10**5000}, "int"),
        ({"lr": 10**400}, "--lr 100000000000000000...0000000000000000000: must be above 0"),
        ({"lr": [10**5000]}, "int"),
        ({"lr": float("inf")}, "--lr inf: must be above 0"),
        ({"gat_layer_scale": float("nan")}, "--gat_layer_scale nan: must be at least 0"),
        ({"label_smoothing": float("-inf")}, "--label_smoothing -inf: must be in [0, 1)"),
        ({"fusion_type": "a\nb" * 999}, "--fusion_type a\\nba\\nba\\"),
        ({"dataset": "a\nb"}, r"--dataset a\nb: must consist of letters"),
        ({"dropout": torch.zeros(3, 3)}, "--dropout tensor([[0., ...[0., 0., 0.]]): must be of type float"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(InputError) as caught:
        make_config(options)
    assert message in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_a_list_of_many_lists_is_named():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, deep * 100_000):
        with pytest.raises(InputError, match=r"^--heads \[.*\]: must be of type int$"):
            make_config({"heads": value})


def test_run_is_named_after_what_differs_from_its_profile():
    assert run_name(make_config({"dataset": "ESD"})) == "paper"
    options = {"dataset": "ESD", "profile": "official", "ablation": "no_chgat", "k_text": 9}
    assert run_name(make_config(options)) == "official-k_text=9-ablation=no_chgat"


def test_dictionary_there_and_back():
    config = make_config({"profile": "official", "dataset": "ESD", "dropout": 0.1})
    values = config.to_dict()
    assert read_config(values, "x.pt") == config
    assert list(values) == list(OPTIONS)
    assert config.replace(heads=2, k_text=1).to_dict() == {**values, "heads": 2, "k_text": 1}
    with pytest.raises(InputError, match=r"x\.pt: written by another version.*heads"):
        read_config({name: v for name, v in values.items() if name != "heads"}, "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: --epochs -1"):
        read_config({**values, "epochs": -1}, "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: --lr '1': must be of type float"):
        read_config({**values, "lr": "1"}, "x.pt")


def test_a_new_hyper_parameter_touches_one_definition(tmp_path):
    """One line in ModelConfig (of a copy) adds the option, its check, the run's name and config.json."""
    for name in ("models", "utils", "train.py"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    definition = tmp_path / "models" / "config.py"
    last = "    channel_gate: str = option("
    line = '    temperature: float = option(1.5, "softmax temperature", rule=within(1))\n'
    text = definition.read_text()
    assert text.count(last) == 1
    definition.write_text(text.replace(last, line + last))
    use = tmp_path / "models" / "cemobam.py"
    use.write_text(
        use.read_text().replace(
            "        dim = config.hidden_dim\n",
            "        print('T', config.temperature)\n        dim = config.hidden_dim\n",
            1,
        )
    )

    def train(*options: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "train.py", "--epochs", "1", "--hidden_dim", "16", "--seeds", "1", *options]
        return subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)

    result = train("--temperature", "2.5")
    assert result.returncode == 0, result.stderr
    assert "T 2.5" in result.stdout
    (run,) = (tmp_path / "checkpoints" / "DEMO").iterdir()
    assert run.name == "paper-hidden_dim=16-temperature=2.5-epochs=1"
    assert '"temperature": 2.5' in (run / "seed1" / "config.json").read_text()
    assert "--temperature 0.5: must be at least 1" in train("--temperature", "0.5").stderr


def test_has_names_the_parts_that_an_ablation_leaves():
    parts = ("ch_gat", "xcbam", "cbam")
    assert [ModelConfig(ablation="no_chgat_no_cbam").has(part) for part in parts] == [False, True, False]


def test_class_names_are_those_of_the_features_then_those_of_the_dataset():
    assert known_class_names("ESD", None) == ("neutral", "angry", "happy", "sad", "surprise")
    assert known_class_names("IEMOCAP", None) == ("anger", "happiness", "neutral", "sadness")
    assert known_class_names("IEMOCAP", {"class_names": ["ang", "sad"]}) == ("ang", "sad")
    assert known_class_names("MINE", None) is None
    assert class_names("MINE", 2, None) == ("class 0", "class 1")
    assert class_names("MINE", 2, ("no", "yes")) == ("no", "yes")
    with pytest.raises(InputError, match="--num_classes 3: IEMOCAP has 4 classes"):
        class_names("IEMOCAP", 3, known_class_names("IEMOCAP", None))
