"""A transformer over the tiles of a slide whose cost grows with their number, not with its square.

Set Transformer (Lee et al. 2019): tiles attend to a few learned points and the points to the tiles, so that a slide of
50,000 tiles needs no matrix of 50,000 x 50,000. Tiles have no order and no place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .bag_model import BagModel, Inputs, masked_softmax

POINTS, LAYERS = 16, 2
HEADS = (8, 4, 2, 1)
"""Attention heads: the first that divides the width."""


class Attend(nn.Module):
    """Queries [B, M, H] look at keys [B, N, H]: multi-head attention, then a feed-forward part, each with a bypass."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = next(h for h in HEADS if hidden % h == 0)
        self.norm_query, self.norm_key, self.norm_out = (nn.LayerNorm(hidden) for _ in range(3))
        self.query, self.key, self.value, self.mix = (nn.Linear(hidden, hidden) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, hidden))

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the queries become, and their attention [B, M, N], the mean over heads."""
        k = self.norm_key(keys)
        q, k, v = (self._split(part) for part in (self.query(self.norm_query(queries)), self.key(k), self.value(k)))
        weights = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # [B, heads, M, N]
        attention = masked_softmax(weights, None if mask is None else mask[:, None, None])
        seen = (attention @ v).transpose(1, 2).flatten(2)
        out = queries + self.mix(seen)
        return out + self.feed(self.norm_out(out)), attention.mean(1)

    def _split(self, x: Tensor) -> Tensor:
        parts: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return parts


class SetTransformer(BagModel):
    """Two rounds of attention through learned points, then one learned query that pools the tiles.

    Parameters
    ----------
    hidden : int
        Width throughout.
    dim, outputs, survival, scores, inputs
        As `BagModel`.
    """

    def __init__(
        self,
        dim: int,
        outputs: int,
        *,
        hidden: int = 256,
        dropout: float = 0.25,
        survival: bool = False,
        scores: int = 0,
        inputs: Inputs = "embeddings",
    ) -> None:
        super().__init__(dim, outputs, hidden=hidden, survival=survival, scores=scores, inputs=inputs)
        self.represent = nn.Sequential(nn.Linear(self.width, hidden), nn.Dropout(dropout))
        self.points = nn.Parameter(torch.randn(LAYERS, POINTS, hidden) / math.sqrt(hidden))
        self.gather = nn.ModuleList(Attend(hidden, dropout) for _ in range(LAYERS))
        self.spread = nn.ModuleList(Attend(hidden, dropout) for _ in range(LAYERS))
        self.seed = nn.Parameter(torch.randn(1, hidden) / math.sqrt(hidden))
        self.read = Attend(hidden, dropout)
        self.norm = nn.LayerNorm(hidden)

    def pool(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `BagModel.pool`; the attention is that of the pooling query."""
        h = self.represent(x)
        for points, gather, spread in zip(self.points, self.gather, self.spread, strict=True):
            gathered, _ = gather(points.expand(len(x), -1, -1), h, mask)
            h, _ = spread(h, gathered, None)
        pooled, attention = self.read(self.seed.expand(len(x), -1, -1), h, mask)
        return self.norm(pooled[:, 0]), attention[:, 0]
