"""Gated attention over the tiles of a slide (Ilse, Tomczak & Welling 2018), and its control: the mean of all tiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .bag_model import BagModel, Inputs, masked_softmax

HIDDEN, ATTENTION, DROPOUT = 512, 384, 0.25


class GatedABMIL(BagModel):
    """A small network represents each tile; a gated one says how much each tile counts.

    Parameters
    ----------
    hidden, attention : int
        Widths of the tile representation and of the attention.
    dim, outputs, survival, scores, inputs
        As `BagModel`.
    """

    def __init__(
        self,
        dim: int,
        outputs: int,
        *,
        hidden: int = HIDDEN,
        attention: int = ATTENTION,
        dropout: float = DROPOUT,
        survival: bool = False,
        scores: int = 0,
        inputs: Inputs = "embeddings",
    ) -> None:
        super().__init__(dim, outputs, hidden=hidden, survival=survival, scores=scores, inputs=inputs)
        self.represent = nn.Sequential(nn.Linear(self.width, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.tanh = nn.Linear(hidden, attention)
        self.gate = nn.Linear(hidden, attention)
        self.score = nn.Linear(attention, 1)
        self.drop = nn.Dropout(dropout)

    def pool(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `BagModel.pool`."""
        h = self.represent(x)  # [B, N, H]
        weights = self.score(self.drop(torch.tanh(self.tanh(h)) * torch.sigmoid(self.gate(h))))[..., 0]
        attention = masked_softmax(weights, mask)
        return (attention[:, None] @ h)[:, 0], attention


class MeanPool(BagModel):
    """The same representation of each tile, and their plain mean: what attention has to beat."""

    def __init__(
        self,
        dim: int,
        outputs: int,
        *,
        hidden: int = HIDDEN,
        dropout: float = DROPOUT,
        survival: bool = False,
        scores: int = 0,
        inputs: Inputs = "embeddings",
    ) -> None:
        super().__init__(dim, outputs, hidden=hidden, survival=survival, scores=scores, inputs=inputs)
        self.represent = nn.Sequential(nn.Linear(self.width, hidden), nn.ReLU(), nn.Dropout(dropout))

    def pool(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `BagModel.pool`: every tile counts the same."""
        h = self.represent(x)
        attention = masked_softmax(torch.zeros_like(x[..., 0]), mask)
        return (attention[:, None] @ h)[:, 0], attention
