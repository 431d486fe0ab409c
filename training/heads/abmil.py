"""Gated attention over the tiles of a slide (Ilse, Tomczak & Welling 2018), and its control: the mean of all tiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .bag_model import BagModel, Inputs, masked_softmax

HIDDEN, ATTENTION, DROPOUT = 512, 384, 0.25


class MeanPool(BagModel):
    """A small network represents each tile, and the slide is their plain mean: what attention has to beat."""

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
        """See `BagModel.pool`."""
        h = self.represent(x)  # [B, N, H]
        attention = masked_softmax(self.weights(h), mask)
        return (attention[:, None] @ h)[:, 0], attention

    def weights(self, h: Tensor) -> Tensor:
        """How much each represented tile [B, N, H] counts, before the softmax: [B, N]. All the same."""
        return torch.zeros_like(h[..., 0])


class GatedABMIL(MeanPool):
    """The same representation of each tile; a gated network says how much each tile counts.

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
        super().__init__(dim, outputs, hidden=hidden, dropout=dropout, survival=survival, scores=scores, inputs=inputs)
        self.tanh = nn.Linear(hidden, attention)
        self.gate = nn.Linear(hidden, attention)
        self.score = nn.Linear(attention, 1)
        self.drop = nn.Dropout(dropout)

    def weights(self, h: Tensor) -> Tensor:
        """By the gated network."""
        return torch.as_tensor(self.score(self.drop(torch.tanh(self.tanh(h)) * torch.sigmoid(self.gate(h))))[..., 0])
