"""What the options of a split can be. Needs no torch."""

GROUPED = ("session", "speaker")
KINDS = ("official", "random", *GROUPED)  # see utils.data.splits
SEED = 42  # default of a random split
