"""Small encoders with random weights, as folders for ``from_pretrained``."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
)

# with the standard strides, a frame is 20 ms
TINY_AUDIO = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
TINY_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 300,
    "max_position_embeddings": 128,
}
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character."""
    words = [*SPECIAL.values(), *map(chr, range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **SPECIAL)


def save_tiny_audio_model(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    Wav2Vec2Model(Wav2Vec2Config(**TINY_AUDIO)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def save_tiny_text_model(folder: Path, pooler: bool = True) -> Path:
    torch.manual_seed(0)
    BertModel(BertConfig(**TINY_TEXT), add_pooling_layer=pooler).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_tiny_ctc_model(folder: Path, seed: int = 0) -> Path:
    """A recogniser with the encoder of :func:`save_tiny_audio_model` for the same seed. It writes capital letters."""
    folder.mkdir(parents=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    Wav2Vec2CTCTokenizer(folder / "vocab.json").save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    torch.manual_seed(seed)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**TINY_AUDIO, vocab_size=len(letters), pad_token_id=0))
    torch.nn.init.normal_(model.lm_head.weight)  # otherwise, one letter wins everywhere
    torch.nn.init.constant_(model.lm_head.bias[1:4], -1000)  # trained models do not emit these
    model.save_pretrained(folder)
    return folder
