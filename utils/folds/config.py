"""What the options of a cross-validation can be. Needs no torch."""

BY = ("session", "speaker", "random")
VALIDATION = {
    "group": "the next fold",
    "speaker": "a fifth of the training speakers",
    "random": "a random fifth of the training utterances, as EmoBox does",
}
POOLED = ("train", "val", "test", "all")  # the pickles of a dataset that are pooled
RANDOM_FOLDS = 5  # where no number is given
