"""Configuration of fine-tuning. Does not import torch."""

from dataclasses import dataclass

from models.config import check_options, option, within

OBJECTIVES = ("supervised", "ntxent")
PRECISIONS = ("fp32", "bf16", "fp16")  # of the forward pass


@dataclass(frozen=True)
class TuneConfig:
    """All settings that affect the result; ``encoder`` is the SHA-256 of the initial weights.

    Raises:
        ValueError: an option has an invalid value; the message names it.
    """

    dataset: str
    modality: str
    encoder: str
    pooling: str
    precision: str = "fp32"
    objective: str = option("supervised", "cross entropy, or NT-Xent of two views of an utterance", OBJECTIVES)
    unfreeze_layers: int = option(2, "number of upper layers to tune", rule=within(1))
    epochs: int = option(10, "maximum number of epochs", rule=within(1))
    patience: int = option(3, "epochs without a better val UA before stopping", rule=within(1))
    batch_size: int = option(8, "utterances per step", rule=within(1))
    lr: float = option(1e-4, "learning rate of the encoder", rule=within(0, ends="()"))
    head_lr: float = option(1e-3, "learning rate of the classifier", rule=within(0, ends="()"))
    weight_decay: float = option(0.01, "weight decay of AdamW", rule=within(0))
    seed: int = option(42, "seed of the new weights, dropout and batches", rule=within(0, 2**32))

    def __post_init__(self):
        check_options(self)
        if self.objective == "ntxent" and self.batch_size < 2:
            raise ValueError(f"batch_size {self.batch_size}: must be at least 2 with ntxent, which needs negatives")

    @property
    def name(self) -> str:
        """``finetune-audio``, followed by every option that differs from its default."""
        plain = TuneConfig(self.dataset, self.modality, self.encoder, self.pooling, precision=self.precision)
        changed = [f"{k}={v}" for k, v in vars(self).items() if v != getattr(plain, k)]
        return "-".join([f"finetune-{self.modality}", *changed])
