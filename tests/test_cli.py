from utils.cli import config_lines
from utils.config import make_config


def test_configuration_shows_every_option_and_marks_the_differences_between_profiles():
    text = config_lines(make_config({"k_text": 3}))
    assert "k_text            3\n" in text
    assert "train_mode        first_step *" in text
    assert "train_mode        every_step *" in config_lines(make_config({"profile": "refined"}))
    assert "gat_layer_scale   0.0 *" in text
    assert "weight_decay      0.0005\n" in text
    assert "k_text" not in config_lines(make_config({}), exclude=("k_text",))
