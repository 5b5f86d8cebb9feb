"""Defaults of the encoder options. Does not import torch."""

TEXT_MODEL = "google-bert/bert-base-uncased"  # as in the paper
AUDIO_MODEL = "facebook/wav2vec2-base-960h"
BATCH_SECONDS = {"cpu": 15.0, "cuda": 240.0}  # large batches are not faster on a CPU (benchmarks/extraction.py)
BATCH_TOKENS = {"cpu": 256, "cuda": 16_384}
