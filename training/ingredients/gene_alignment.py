"""SEAL's ingredient: a tile and the genes of its spot in one latent space, that of a gene autoencoder.

After Hemker, Song et al. ("SEAL"): the latent is that of a variational autoencoder of smoothed log counts; a
contrast brings both sides together, genes are decoded from the picture and the picture's features from the genes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..config import TrainConfig
from ..losses import contrastive_loss, measured_error
from .gene_autoencoder import GeneAutoencoder
from .ingredient import Matching, Seen, two_layers


class GeneAlignment(Matching):
    """Terms ``gene_autoencoder``, ``gene_contrast``, ``gene_decoding`` and ``image_decoding``.

    Parameters
    ----------
    dim, frozen_dim, genes : int
        D of the picture's embedding, that of the model before adapting, and G.
    config : TrainConfig
    """

    temperature: Tensor

    def __init__(self, dim: int, frozen_dim: int, genes: int, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = GeneAutoencoder(genes, config.gene_latent)
        self.picture = two_layers(dim, config.gene_latent, max(config.gene_latent, dim // 2))
        self.picture_decoder = two_layers(config.gene_latent, frozen_dim)
        self.register_buffer("temperature", torch.tensor(math.log(config.gene_temperature)), persistent=False)

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        """The terms whose weight is not 0."""
        config, terms, measured = self.config, {}, seen.tables.get("measured")
        mean, log_variance = self.autoencoder.encode(seen.genes)
        picture = self.picture(seen.embedding)
        if config.w_gene_autoencoder > 0:
            terms["gene_autoencoder"] = self.autoencoder.loss(seen.genes, mean, log_variance, measured)
        if config.w_gene_contrast > 0:
            terms["gene_contrast"] = contrastive_loss(
                picture, mean, seen.target, seen.slide, self.temperature, soft=0.0
            )
        if config.w_gene_decoding > 0:
            terms["gene_decoding"] = measured_error(self.autoencoder.decode(picture), seen.genes, measured)
        if config.w_image_decoding > 0:
            made = self.picture_decoder(mean)
            wanted = seen.embedding[:, : made.shape[1]].detach() if seen.frozen is None else seen.frozen.float()
            terms["image_decoding"] = (1 - functional.cosine_similarity(made, wanted, dim=1)).mean()
        return terms

    def picture_side(self, embedding: Tensor) -> Tensor:
        """The latent that the picture gives."""
        return torch.as_tensor(self.picture(embedding))

    def molecular_side(self, genes: Tensor, niche: Tensor, near: Tensor) -> Tensor:
        """The latent that the genes give."""
        return self.autoencoder.encode(genes)[0]
