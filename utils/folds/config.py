"""The values of the options of a cross-validation. This module does not import torch."""

BY = ("session", "speaker", "random")
VALIDATION = {
    "group": "the next fold",
    "speaker": "a fifth of the training speakers",
    "random": "a random fifth of the training utterances, as EmoBox does",
}
POOLED = ("train", "val", "test", "all")  # the pickles of a dataset that can be pooled
RANDOM_FOLDS = 5  # if no number is given
