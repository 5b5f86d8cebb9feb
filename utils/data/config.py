"""What the options of a split can be. Needs no torch."""

GROUPED = ("session", "speaker")
KINDS = ("official", "random", *GROUPED)  # see utils.data.splits
FEWEST_GROUPS = 3  # one each for train, val and test
MOST_FOLDS = 10  # of whole groups, where no --folds are given to the default split
SEED = 42  # default of a random split
