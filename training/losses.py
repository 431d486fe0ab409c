"""The four losses of pathway alignment and two optional ones, each a function of arrays with shapes in its docstring.

All of them take float32, whatever the autocast around them, and leave masked pathways out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-6


def regression_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Smooth L1 over measured pathways.

    Parameters
    ----------
    predicted, target : float [N, P]
    mask : bool [N, P]
        False where the pathway is not measured on that spot's platform.
    """
    loss = functional.smooth_l1_loss(predicted, target, reduction="none")
    weight = mask.float()
    return (loss * weight).sum() / weight.sum().clamp_min(1)


def pearson_columns(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's r of each column: [n, P], [n, P] -> [P]; 0 where a column is constant."""
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / ((a * a).sum(0) * (b * b).sum(0) + EPS).sqrt()


def correlation_loss(predicted: Tensor, target: Tensor, mask: Tensor, slide: Tensor) -> Tensor:
    """Mean over slides and pathways of (1 - rho)^2, rho being Pearson's r within the slide's part of the batch.

    Parameters
    ----------
    slide : int [N]
        Which slide each row comes from. Slides with fewer than 4 rows have no stable rho and are left out.
    """
    losses = []
    for index in slide.unique():
        rows = slide == index
        if int(rows.sum()) < 4:
            continue
        keep = mask[rows].all(0)
        if keep.any():
            rho = pearson_columns(predicted[rows][:, keep], target[rows][:, keep])
            losses.append(((1 - rho) ** 2).mean())
    return torch.stack(losses).mean() if losses else predicted.sum() * 0.0


def contrastive_loss(
    image: Tensor, molecular: Tensor, target: Tensor, slide: Tensor, log_temperature: Tensor, soft: float = 0.5
) -> Tensor:
    """Symmetric InfoNCE between tiles and pathway profiles, with negatives from the same slide only.

    Negatives of other slides would teach stain and batch. Two spots with alike profiles are no true negatives, so the
    one-hot target is mixed, `soft` : 1 - `soft`, with a softmax of the profiles' correlation.

    Parameters
    ----------
    image, molecular : float [N, E]
        Projections; normalised here.
    target : float [N, P]
        Pathway profiles, masked ones set to 0.
    log_temperature : float scalar
    """
    image, molecular = functional.normalize(image, dim=1), functional.normalize(molecular, dim=1)
    scale = (-log_temperature).clamp(max=4.6).exp()  # temperature no lower than 0.01
    losses = []
    for index in slide.unique():
        rows = slide == index
        n = int(rows.sum())
        if n < 2:
            continue
        logits = scale * image[rows] @ molecular[rows].T  # [n, n]
        profile = functional.normalize(target[rows] - target[rows].mean(1, keepdim=True), dim=1)
        alike = torch.softmax(profile @ profile.T / 0.1, dim=1)
        wanted = soft * alike + (1 - soft) * torch.eye(n, device=logits.device)
        losses.append(functional.cross_entropy(logits, wanted) / 2 + functional.cross_entropy(logits.T, wanted.T) / 2)
    return torch.stack(losses).mean() if losses else image.sum() * 0.0


def measured_error(made: Tensor, wanted: Tensor, measured: Tensor | None = None) -> Tensor:
    """Mean squared error of genes [N, G], over those that are measured (1, else 0) where that differs between spots."""
    if measured is None:
        return functional.mse_loss(made, wanted)
    return ((made - wanted).square() * measured).sum() / measured.sum().clamp_min(1)


def anchor_loss(embedding: Tensor, frozen: Tensor) -> Tensor:
    """Mean of 1 - cos(z, z_frozen): keeps the adapted embedding near the foundation model's. Both [N, D]."""
    return (1 - functional.cosine_similarity(embedding, frozen.detach(), dim=1)).mean()


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class AuxiliaryHeads(nn.Module):
    """Heads of the two optional losses; they serve training only and are not part of a run's model.

    Parameters
    ----------
    dim : int
        D, length of the embedding.
    genes : int
        Genes to reconstruct, 0 for none.
    batches : int
        Samples to be told apart by the adversarial head (Ganin et al. 2016), 0 for none.
    """

    def __init__(self, dim: int, genes: int = 0, batches: int = 0) -> None:
        super().__init__()
        self.genes = nn.Linear(dim, genes) if genes else None
        self.batch = nn.Sequential(nn.Linear(dim, 64), nn.GELU(), nn.Linear(64, batches)) if batches else None

    def gene_loss(self, embedding: Tensor, expression: Tensor, measured: Tensor | None = None) -> Tensor:
        """Mean squared error of standardised log expression [N, G]."""
        if self.genes is None:
            return embedding.sum() * 0.0
        return measured_error(self.genes(embedding), expression, measured)

    def batch_loss(self, embedding: Tensor, slide: Tensor) -> Tensor:
        """Cross-entropy of guessing the sample, with the gradient into the embedding reversed."""
        if self.batch is None:
            return embedding.sum() * 0.0
        reverse: Callable[[Tensor], Tensor] = _ReverseGradient.apply  # typed in some versions of torch
        guess = self.batch(reverse(functional.normalize(embedding, dim=1)))
        return functional.cross_entropy(guess, slide)
