"""A variational autoencoder of a spot's genes (Kingma & Welling 2014)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..losses import measured_error
from .ingredient import two_layers

HIDDEN = 256
LOG_VARIANCE = 6.0
"""Bound of the log variance, both ways: a spot of the first steps must not blow up."""


class GeneAutoencoder(nn.Module):
    """Genes [N, G] -> latent [N, E] -> genes [N, G].

    Parameters
    ----------
    genes, latent : int
        G and E.
    """

    def __init__(self, genes: int, latent: int) -> None:
        super().__init__()
        self.encoder = two_layers(genes, 2 * latent, HIDDEN)
        self.decoder = two_layers(latent, genes, HIDDEN)

    def encode(self, genes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent, each [N, E]."""
        mean, log_variance = self.encoder(genes).chunk(2, dim=1)
        return mean, log_variance.clamp(-LOG_VARIANCE, LOG_VARIANCE)

    def decode(self, latent: Tensor) -> Tensor:
        """Standardised log expression [N, G]."""
        return torch.as_tensor(self.decoder(latent))

    def loss(self, genes: Tensor, mean: Tensor, log_variance: Tensor, measured: Tensor | None = None) -> Tensor:
        """Negative evidence lower bound a gene, of genes with unit variance around the decoder's: half the squared
        error, and the divergence of the latent from a standard normal."""
        latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return 0.5 * measured_error(self.decode(latent), genes, measured) + divergence / genes.shape[1]
