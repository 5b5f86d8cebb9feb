"""What the options of the encoders can be. Needs no torch."""

TEXT_MODEL = "google-bert/bert-base-uncased"  # the paper's
AUDIO_MODEL = "facebook/wav2vec2-base-960h"
BATCH_SECONDS = {"cpu": 15.0, "cuda": 240.0}  # a CPU gains nothing from large batches (benchmarks/extraction.py)
BATCH_TOKENS = {"cpu": 256, "cuda": 16_384}
