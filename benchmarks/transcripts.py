"""Measure the accuracy of a recogniser, and the effect of its errors on emotions (docs/transcripts.md).

    python -m benchmarks.transcripts recognition RAVDESS MODEL      # a folder with metadata.csv: path, text, emotion
    python -m benchmarks.transcripts errors FEATURES DATASET TEXT_MODEL

The first command prints the word error rate and the time per minute of speech. The second replaces the text embeddings
of a dataset's features with those of TEXT_MODEL, and trains on them (seeds 1 to 3, profile `paper`). Then it predicts
the test split. Some words of its transcripts are removed, or replaced with random words of the train transcripts.
"""

import argparse
import pickle
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from utils.config import ROOT, SPLITS, feature_path
from utils.data.audio import probe
from utils.data.features import load_features
from utils.errors import run_main
from utils.extraction.config import BATCH_SECONDS, BATCH_TOKENS
from utils.extraction.embedding import embed_texts
from utils.extraction.embedding_cache import EmbeddingCache
from utils.extraction.encoding import stop_at_bad
from utils.extraction.hub import load_text_encoder
from utils.prediction.inductive import Predictor, load_training_graph
from utils.training.metrics import compute_metrics
from utils.training.trained import find_checkpoints, load_run
from utils.transcription.recognizer import Recognizer, transcribe, word_error_rate

CPU = torch.device("cpu")
SHARES = (0.0, 0.1, 0.2, 0.4, 0.8)  # fractions of wrong words
DRAWS = 5  # random draws of wrong words


def recognition(args: argparse.Namespace) -> None:
    table = pd.read_csv(args.corpus / "metadata.csv").iloc[:: args.every]
    true = {str(args.corpus / path): text for path, text in zip(table["path"], table["text"], strict=True)}
    recordings = {path: probe(Path(path)) for path in true}
    seconds = sum(recording.seconds for recording in recordings.values())
    with TemporaryDirectory() as folder:
        recognizer = Recognizer(args.model, "", Path(folder) / "transcripts.csv", CPU)
        begin, processor = time.perf_counter(), time.process_time()
        found = transcribe(recognizer, recordings, BATCH_SECONDS["cpu"], stop_at_bad, None)
    begin, processor = time.perf_counter() - begin, time.process_time() - processor
    print(f"{recognizer.name}: {len(found)} recordings, {seconds / 60:.1f} minutes, {torch.get_num_threads()} threads")
    print(f"word error rate {100 * word_error_rate([(true[path], text) for path, text in found.items()]):.1f} %")
    for emotion, rows in table.groupby("emotion"):
        pairs = [(true[path], found[path]) for path in (str(args.corpus / each) for each in rows["path"])]
        exact = sum(word_error_rate([pair]) == 0 for pair in pairs)
        print(f"  {emotion:10} {100 * word_error_rate(pairs):5.1f} %   {exact} of {len(pairs)} without an error")
    print(f"per minute of speech: {60 * begin / seconds:.1f} s, {60 * processor / seconds:.1f} s of CPU time")


def errors(args: argparse.Namespace) -> None:
    encoder, _ = load_text_encoder(args.text_model, None, CPU)
    cache = EmbeddingCache(None, encoder.dim)

    def embed(texts: list[str]) -> torch.Tensor:
        embed_texts(encoder, texts, cache, BATCH_TOKENS["cpu"])
        return torch.from_numpy(np.stack([cache[text] for text in texts]))

    with TemporaryDirectory() as folder:
        texts = {}
        for split in SPLITS:
            path = feature_path(args.features, args.dataset, split)
            features = load_features(path)
            texts[split] = pd.read_csv(path.with_suffix(".csv"))["raw_text"].tolist()
            rows = zip(embed(texts[split]).numpy(), features.audio.numpy(), features.label.tolist(), strict=True)
            data = [{"text_embed": text, "audio_embed": audio, "label": label} for text, audio, label in rows]
            feature_path(Path(folder), args.dataset, split).write_bytes(pickle.dumps(data))
        command = ["train.py", "--dataset", args.dataset, "--feature_dir", folder, "--save_path", folder]
        command += ["--model_name", "r", "--profile", "paper", "--seeds", "1", "2", "3", "--device", "cpu"]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        trained = load_run(find_checkpoints(str(Path(folder) / args.dataset / "r"), Path(folder))[1])
        predictor = Predictor(trained, load_training_graph(trained[0]), CPU)
    words = [word for text in texts["train"] for word in text.split()]
    label, audio = features.label, features.audio  # of test

    def score(text: torch.Tensor) -> list[float]:
        metrics = compute_metrics(label, predictor(text, audio).argmax(1), len(trained[0].class_names))
        return [100 * metrics["wa"], 100 * metrics["ua"]]

    print(f"{len(label)} test utterances, 3 models of the profile paper, {DRAWS} draws of wrong words")
    for share in SHARES:
        drawn = []
        for seed in range(DRAWS if share else 1):
            rng = np.random.default_rng(seed)
            wrong = [_with_errors(text, share, words, rng) for text in texts["test"]]
            rate = word_error_rate(list(zip(texts["test"], wrong, strict=True)))
            drawn.append([100 * rate, *score(embed(wrong))])
        rate, wa, ua = np.mean(drawn, axis=0)
        print(f"word error rate {rate:5.1f} %: WA {wa:.2f}, UA {ua:.2f}")
    wa, ua = score(predictor.means[0].expand(len(label), -1))
    print(f"no transcript:          WA {wa:.2f}, UA {ua:.2f}")


def _with_errors(text: str, share: float, words: list[str], rng: np.random.Generator) -> str:
    """A transcript in which this share of the words is wrong. Three in four of them are replaced, one is removed."""
    found = [
        word if rng.random() >= share else words[rng.integers(len(words))] if rng.random() < 0.75 else ""
        for word in text.split()
    ]
    return " ".join(filter(None, found)) or words[rng.integers(len(words))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="recognition: use every N-th recording")
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("recognition")
    one.add_argument("corpus", type=Path)
    one.add_argument("model")
    one.set_defaults(part=recognition)
    two = parts.add_parser("errors")
    two.add_argument("features", type=Path)
    two.add_argument("dataset")
    two.add_argument("text_model")
    two.set_defaults(part=errors)
    args = parser.parse_args()
    args.part(args)


if __name__ == "__main__":
    run_main(main)
