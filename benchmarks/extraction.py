"""Measure the gain from batches of similar length and decoding in worker processes (5 minutes on 2 cores).

    python -m benchmarks.extraction

The input is noise recordings with IEMOCAP's distribution of lengths, half of which must be resampled, and random
transcripts. The encoders are a Wav2Vec2 base and a BERT base with random weights, which are as fast as trained ones.
The reference processes one recording at a time: decode, resample, the checkpoint's feature extractor, the model's
``forward``, mean over time. Whisper is not timed, because its input window is always 30 s and the length of a recording
makes no difference.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch
import torchaudio
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tqdm import tqdm
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from benchmarks.speed import row
from benchmarks.steps import timed
from models.encoders import ConvTransformerEncoder, TextEncoder
from utils.device import describe, open_device, pick_device
from utils.errors import InputError, run_main
from utils.extraction.config import BATCH_SECONDS, BATCH_TOKENS
from utils.extraction.embedding import embed_recordings, embed_texts, probe_all
from utils.extraction.embedding_cache import EmbeddingCache
from utils.extraction.encoding import stop_at_bad
from utils.io import align

MEDIAN_SECONDS, SPREAD, LONGEST = 3.7, 0.63, 34.1  # IEMOCAP's 5531 utterances: log-normal, their mean is 4.5 s
RATES = (16_000, 44_100)
WORDS = 400
TOLERANCE = 1e-5  # relative difference of the embeddings


def write_recordings(folder: Path, count: int) -> list[str]:
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        seconds = min(MEDIAN_SECONDS * np.exp(SPREAD * rng.standard_normal()), LONGEST)
        rate = RATES[i % len(RATES)]
        paths.append(str(folder / f"{i:04d}.wav"))
        soundfile.write(paths[-1], 0.1 * rng.standard_normal(int(seconds * rate)), rate)
    return paths


def make_texts(count: int) -> list[str]:
    """Distinct transcripts of 1 to 60 words, with a mean of 12 words as in IEMOCAP."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.geometric(1 / 12, count), 1, 60)
    return [
        " ".join(f"w{word}" for word in rng.integers(WORDS, size=length)) + f" w{i}" for i, length in enumerate(lengths)
    ]


def audio_encoder(device: torch.device) -> ConvTransformerEncoder:
    torch.manual_seed(0)
    model = Wav2Vec2Model(Wav2Vec2Config())
    return ConvTransformerEncoder(model, Wav2Vec2FeatureExtractor(do_normalize=True)).to(device).eval()


def text_encoder(device: torch.device, count: int) -> TextEncoder:
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(max(WORDS, count)))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names)
    return TextEncoder(BertModel(BertConfig()), fast).to(device).eval()


@torch.inference_mode()
def recordings_one_by_one(encoder: ConvTransformerEncoder, paths: list[str]) -> np.ndarray:
    model, embeddings = encoder.model, []
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        waveform = torchaudio.functional.resample(torch.from_numpy(samples), rate, encoder.sampling_rate)
        inputs = encoder.feature_extractor(waveform.numpy(), sampling_rate=encoder.sampling_rate, return_tensors="pt")
        hidden = model(inputs["input_values"].to(model.device)).last_hidden_state
        embeddings.append(hidden.mean(1)[0].cpu().numpy())
    return np.stack(embeddings)


@torch.inference_mode()
def texts_one_by_one(encoder: TextEncoder, texts: list[str]) -> np.ndarray:
    model, embeddings = encoder.model, []
    for text in texts:
        embeddings.append(model(**encoder.tokenizer(text, return_tensors="pt").to(model.device)).pooler_output[0].cpu())
    return torch.stack(embeddings).numpy()


def recordings_ours(encoder: ConvTransformerEncoder, paths: list[str], batch_seconds: float) -> np.ndarray:
    with TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder), encoder.dim)
        embeddings = embed_recordings(encoder, probe_all(paths, stop_at_bad), cache, batch_seconds, stop_at_bad)
    return np.stack([embeddings[path] for path in paths])


def texts_ours(encoder: TextEncoder, texts: list[str], batch_tokens: int) -> np.ndarray:
    with TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder), encoder.dim)
        embed_texts(encoder, texts, cache, batch_tokens)
    return np.stack([cache[text] for text in texts])


def audio_row(encoder: ConvTransformerEncoder, paths: list[str], batch_seconds: float, turns: int) -> tuple[str, ...]:
    return compare(
        f"{len(paths)} recordings, Wav2Vec2 base, {encoder.model.device.type}",
        lambda: recordings_one_by_one(encoder, paths),
        lambda: recordings_ours(encoder, paths, batch_seconds),
        turns,
    )


def text_row(encoder: TextEncoder, texts: list[str], batch_tokens: int, turns: int) -> tuple[str, ...]:
    return compare(
        f"{len(texts)} transcripts, BERT base, {encoder.model.device.type}",
        lambda: texts_one_by_one(encoder, texts),
        lambda: texts_ours(encoder, texts, batch_tokens),
        turns,
    )


def compare(title: str, one_by_one, ours, turns: int) -> tuple[str, ...]:
    """Time both sides in turns, and return a row of the table. Their embeddings must agree."""
    first, second = [], []
    for _ in tqdm(range(turns), desc=title, unit="turn"):
        results = []
        first.append(timed(lambda found=results: found.append(one_by_one())))
        second.append(timed(lambda found=results: found.append(ours())))
        difference = np.linalg.norm(results[0] - results[1], axis=1) / np.linalg.norm(results[0], axis=1)
        if difference.max() > TOLERANCE:
            raise InputError(f"{title}: the embeddings differ by {difference.max():.1e}")
    return row(title, first, second, "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--recordings", type=int, default=60)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--batch_seconds", type=float, help="default: as in extract_features.py")
    parser.add_argument("--batch_tokens", type=int, help="default: as in extract_features.py")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    rows = [("", "one by one", "ours", "ratio")]
    with TemporaryDirectory() as folder:
        paths, texts = write_recordings(Path(folder), args.recordings), make_texts(args.texts)
        for name in ["cpu"] + ["cuda"] * torch.cuda.is_available():
            device = open_device(name)
            rows += [
                audio_row(audio_encoder(device), paths, args.batch_seconds or BATCH_SECONDS[name], args.turns),
                text_row(text_encoder(device, len(texts)), texts, args.batch_tokens or BATCH_TOKENS[name], args.turns),
            ]
    print(f"{describe(pick_device('auto'))}, torch {torch.__version__}, medians of {args.turns} turns")
    print("\n".join(align(rows)))


if __name__ == "__main__":
    run_main(main)
