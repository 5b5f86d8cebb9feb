"""Fine-tuning objectives: emotion classification (supervised), or similarity of two views (NT-Xent)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 0.07  # as in the published code
HEAD_DROPOUT = 0.1


class Classification(nn.Module):
    """Cross entropy of a linear classifier on the embedding."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.head = nn.Sequential(nn.Dropout(HEAD_DROPOUT), nn.Linear(dim, num_classes))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss. Shapes: embeddings [B, dim], labels [B]."""
        return F.cross_entropy(self.head(embeddings), labels)


class NTXent(nn.Module):
    """Normalised temperature-scaled cross entropy of SimCLR, as in the published code.

    It is applied to the embedding itself, without a projection head.
    """

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean loss. Shapes: embeddings [2B, dim], first views of B utterances, then second views in the same order."""
        units = F.normalize(embeddings, dim=1)
        similarity = units @ units.T / TEMPERATURE
        diagonal = torch.eye(len(units), dtype=torch.bool, device=units.device)
        positive = torch.arange(len(units), device=units.device).roll(len(units) // 2)
        return F.cross_entropy(similarity.masked_fill(diagonal, -torch.inf), positive)


def probe(train: Tensor, train_labels: Tensor, val: Tensor) -> Tensor:
    """Labels [M] predicted by a logistic regression on embeddings. Shapes: train [N, dim], val [M, dim]."""
    from sklearn.linear_model import LogisticRegression  # scikit-learn takes a second to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    regression.fit(train.cpu().numpy(), train_labels.cpu().numpy())
    return torch.from_numpy(regression.predict(val.cpu().numpy()))
