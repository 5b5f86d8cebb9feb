"""What the paper prints, to stand beside our numbers (Tables I and II), and the note it needs."""

from utils.config import Config

# dataset -> row -> WA, UA, w-F1 in percent
PRINTED = {
    "IEMOCAP": {
        "min": (82.17, 81.85, 81.85),
        "cls": (79.55, 78.91, 78.89),
        "max": (80.46, 80.11, 80.08),
        "mean": (79.50, 79.17, 79.19),
        "no_xcbam": (62.49, 62.32, 60.07),
        "no_chgat": (79.88, 79.67, 79.65),
    },
    "ESD": {
        "min": (95.09, 95.09, 95.09),
        "cls": (94.19, 94.19, 94.20),
        "max": (94.50, 94.50, 94.52),
        "mean": (94.48, 94.48, 94.50),
        "no_xcbam": (60.27, 60.27, 60.17),
        "no_chgat": (94.86, 94.86, 94.87),
    },
}

SWAPPED = (
    "The paper's WA and UA of IEMOCAP are most likely swapped: every UA it prints is a multiple of 1/2755\n"
    "(5 seeds x 551 test utterances), as only plain accuracy is, and its code computes WA as balanced accuracy.\n"
    "Here WA is the accuracy over all utterances and UA the mean of the per-class recalls."
)


def printed(config: Config) -> dict[str, float] | None:
    """The paper's row for this configuration, in percent, keyed as our metrics; None where it has none."""
    row = config.fusion_type if config.ablation == "none" else config.ablation
    if config.ablation != "none" and config.fusion_type != "min":
        return None
    values = PRINTED.get(config.dataset, {}).get(row)
    return dict(zip(("wa", "ua", "w_f1"), values, strict=True)) if values else None
