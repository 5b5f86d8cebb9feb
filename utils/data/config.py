"""Values of the split options. Does not import torch."""

GROUPED = ("session", "speaker")
KINDS = ("official", "random", *GROUPED)  # see utils.data.splits
FEWEST_GROUPS = 3  # one each for train, val and test
MOST_FOLDS = 10  # limit of the default split when --folds is not given
SEED = 42  # default seed of a random split
