"""ST-Align's ingredient: pictures and genes are matched for the spot, for its niche, and across both.

After ST-Align (arXiv 2411.16793): the spot's picture is the smallest field of view and the niche's the largest, the
niche's genes are the mean of the neighbours'; attention fuses spot and niche on either side before the third match.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..losses import contrastive_loss
from .ingredient import Matching, Seen, two_layers

HEADS = 4


class AttentionFusion(nn.Module):
    """Spot [N, E] and niche [N, E] -> one [N, E]: a learned query attends to both, beside their mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.randn(2, width) * 0.02)
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.attention = nn.MultiheadAttention(width, HEADS if width % HEADS == 0 else 1, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, spot: Tensor, niche: Tensor) -> Tensor:
        """The fused level."""
        both = torch.stack([spot, niche], dim=1) + self.level
        found, _ = self.attention(self.query.expand(len(both), -1, -1), both, both, need_weights=False)
        return torch.as_tensor(self.norm(both.mean(1) + found[:, 0]))


class NicheAlignment(Matching):
    """Terms ``spot_contrast``, ``niche_contrast`` and ``cross_contrast``.

    Parameters
    ----------
    width : int
        Length of a field's part of the embedding.
    order : list of int
        The fields from the smallest to the largest.
    genes : int
        G.
    config : TrainConfig
    """

    temperature: Tensor

    def __init__(self, width: int, order: list[int], genes: int, config: TrainConfig) -> None:
        super().__init__()
        self.config, self.width, self.order = config, width, order
        latent = config.gene_latent
        self.pictures = nn.ModuleList(two_layers(width, latent) for _ in range(2))
        self.molecules = nn.ModuleList(two_layers(genes, latent, 2 * latent) for _ in range(2))
        self.fuse_pictures, self.fuse_molecules = AttentionFusion(latent), AttentionFusion(latent)
        self.register_buffer("temperature", torch.tensor(math.log(config.gene_temperature)), persistent=False)

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        """The terms whose weight is not 0."""
        config, terms = self.config, {}
        spot, niche = self._pictures(seen.embedding)
        genes, around = self._molecules(seen.genes, seen.tables["niche"])
        if config.w_spot_contrast > 0:
            terms["spot_contrast"] = self._contrast(spot, genes, seen)
        if config.w_niche_contrast > 0:
            terms["niche_contrast"] = self._contrast(niche, around, seen)
        if config.w_cross_contrast > 0:
            fused = self.fuse_pictures(spot, niche), self.fuse_molecules(genes, around)
            terms["cross_contrast"] = self._contrast(*fused, seen)
        return terms

    def _contrast(self, picture: Tensor, molecules: Tensor, seen: Seen) -> Tensor:
        return contrastive_loss(picture, molecules, seen.target, seen.slide, self.temperature, soft=0.0)

    def _pictures(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        parts = embedding.split(self.width, dim=1)
        return self.pictures[0](parts[self.order[0]]), self.pictures[1](parts[self.order[-1]])

    def _molecules(self, genes: Tensor, niche: Tensor) -> tuple[Tensor, Tensor]:
        return self.molecules[0](genes), self.molecules[1](niche)

    def picture_side(self, embedding: Tensor) -> Tensor:
        """Spot and niche, fused."""
        return torch.as_tensor(self.fuse_pictures(*self._pictures(embedding)))

    def molecular_side(self, genes: Tensor, niche: Tensor, near: Tensor) -> Tensor:
        """Spot and niche, fused."""
        return torch.as_tensor(self.fuse_molecules(*self._molecules(genes, niche)))
