"""What the paper prints, to stand beside our numbers: Tables I to IV, and the note that they need."""

from utils.config import Config
from utils.metrics import REPORTED

# dataset -> row -> WA, UA, w-F1 in percent (Tables I and II)
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
# dataset -> reference, year, modality, WA, UA as printed (Tables III and IV, without the paper's own row)
OTHER_METHODS = {
    "IEMOCAP": (
        ("Padi et al.", 2022, "audio + text", "75.76", "76.07"),
        ("Priyasad et al.", 2023, "audio + text", "76.80", "77.30"),
        ("Pham et al.", 2023, "audio + text", "63.10", "63.00"),
        ("Naderi et al.", 2023, "audio", "74.16", "75.63"),
        ("Khan et al.", 2023, "audio", "72.75", "–"),
        ("Kyung et al.", 2024, "audio + text", "77.16", "76.11"),
        ("Nguyen et al.", 2024, "audio + text", "–", "77.22"),
        ("Khan et al.", 2025, "audio + text", "81.85", "81.33"),
    ),
    "ESD": (
        ("Zhou et al.", 2022, "audio", "–", "89.00"),
        ("Pham et al. (without surprise)", 2023, "audio + text", "90.47", "90.46"),
        ("Yang et al.", 2024, "audio", "88.50", "88.50"),
        ("Khan et al.", 2025, "audio + text", "91.84", "91.93"),
    ),
}
# WA that the paper claims to surpass, in its abstract and in IV.D
BEST_OTHER = {dataset: max(float(wa) for *_, wa, _ in rows if wa != "–") for dataset, rows in OTHER_METHODS.items()}
UTTERANCES = {"IEMOCAP": {"train": 4407, "val": 551, "test": 551}, "ESD": {"train": 13996, "val": 1749, "test": 1750}}

SWAPPED = (
    "The paper's WA and UA of IEMOCAP are most likely swapped: every UA it prints is a multiple of 1/2755\n"
    "(5 seeds x 551 test utterances), as only plain accuracy is, and its code computes WA as balanced accuracy.\n"
    "Here WA is the accuracy over all utterances and UA the mean of the per-class recalls."
)


def table_row(config: Config) -> str | None:
    """The row of Table I or II that this configuration is, as :data:`PRINTED` calls it."""
    if config.ablation == "none":
        return config.fusion_type
    return config.ablation if config.fusion_type == "min" else None


def printed(config: Config) -> dict[str, float] | None:
    """The paper's row for this configuration, in percent, keyed as our metrics; None where it has none."""
    values = PRINTED.get(config.dataset, {}).get(table_row(config))
    return dict(zip(REPORTED, values, strict=True)) if values else None


def accuracy(config: Config) -> float | None:
    """What the paper most likely measured as the accuracy over all utterances: its UA of IEMOCAP, see SWAPPED."""
    row = printed(config)
    return row and row["ua" if config.dataset == "IEMOCAP" else "wa"]
