import dataclasses

import pytest

from utils.config import (
    OFFICIAL,
    SEEDS,
    Config,
    class_names,
    config_from_dict,
    known_class_names,
    make_config,
    run_name,
)
from utils.errors import InputError


def test_official_names_every_difference_and_nothing_else():
    paper, official = make_config({}), make_config({"profile": "official"})
    differences = {f.name for f in dataclasses.fields(Config) if getattr(paper, f.name) != getattr(official, f.name)}
    assert differences == set(OFFICIAL)


def test_published_settings():
    """DESIGN.md section 4, the column of the published code."""
    c = make_config({"profile": "official", "dataset": "IEMOCAP"})
    assert (c.epochs, c.lr, c.weight_decay, c.hidden_dim, c.heads, c.num_layers) == (100, 1e-4, 5e-4, 512, 4, 3)
    assert (c.lr_schedule, c.lr_decay, c.lr_patience, c.dropout, c.fusion_type) == ("plateau", 0.3, 15, 0.3, "min")
    assert (c.train_mode, c.selection, c.label_smoothing) == ("first_step", "last", 0.0)


def test_paper_settings():
    """What the paper's text fixes: lr 1e-4 (III.B), decay every 30 epochs (III.B), 3 layers and MIN (IV.D)."""
    c = make_config({})
    assert (c.lr, c.lr_schedule, c.lr_patience, c.num_layers, c.fusion_type) == (1e-4, "step", 30, 3, "min")
    assert (c.gat_last_heads, c.channel_gate, c.message_flow) == ("average", "sum_then_sigmoid", "neighbors_to_node")
    assert (c.train_mode, c.selection, c.topk_self) == ("every_step", "best_val_wf1", "mask")


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
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"num_layers": 1}, "--num_layers 1: must be at least 2"),
        ({"hidden_dim": 30}, "--hidden_dim 30: must be a multiple of the 4 heads"),
        ({"hidden_dim": 8}, "--hidden_dim 8: must be at least 16"),
        ({"fusion_type": "sum"}, "--fusion_type sum: expected one of min, max, mean, cls"),
        ({"profile": "mine"}, "--profile mine: expected one of paper, official"),
        ({"dataset": "../x"}, "--dataset ../x: a name of"),
        ({"lr_decay": 0.0}, "--lr_decay 0.0"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(InputError) as caught:
        make_config(options)
    assert message in str(caught.value)


def test_run_is_named_after_what_differs_from_its_profile():
    assert run_name(make_config({"dataset": "ESD"})) == "paper"
    options = {"dataset": "ESD", "profile": "official", "ablation": "no_chgat", "k_text": 9}
    assert run_name(make_config(options)) == "official-k_text=9-ablation=no_chgat"


def test_dictionary_there_and_back():
    config = make_config({"profile": "official", "dataset": "ESD", "dropout": 0.1})
    values = dataclasses.asdict(config)
    assert config_from_dict(values, "x.pt") == config
    with pytest.raises(InputError, match=r"x\.pt: written by another version.*heads"):
        config_from_dict({name: v for name, v in values.items() if name != "heads"}, "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: --epochs -1"):
        config_from_dict({**values, "epochs": -1}, "x.pt")


def test_class_names_are_those_of_the_features_then_those_of_the_dataset():
    assert known_class_names("ESD", None) == ("neutral", "angry", "happy", "sad", "surprise")
    assert known_class_names("IEMOCAP", None) == ("anger", "happiness", "neutral", "sadness")
    assert known_class_names("IEMOCAP", {"class_names": ["ang", "sad"]}) == ("ang", "sad")
    assert known_class_names("MINE", None) is None
    assert class_names("MINE", 2, None) == ("class 0", "class 1")
    assert class_names("MINE", 2, ("no", "yes")) == ("no", "yes")
    with pytest.raises(InputError, match="--num_classes 3: IEMOCAP has 4 classes"):
        class_names("IEMOCAP", 3, known_class_names("IEMOCAP", None))
