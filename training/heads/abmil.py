"""Gated attention over the tiles of a slide (Ilse, Tomczak & Welling 2018): embeddings in, one set of logits out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN, ATTENTION, DROPOUT = 512, 384, 0.25


class GatedABMIL(nn.Module):
    """One head.

    Parameters
    ----------
    dim : int
        D, length of the tile embeddings.
    outputs : int
        Classes; for survival the time bins.
    hidden, attention : int
        Widths of the tile representation and of the attention.
    survival : bool
        `forward` then gives one risk score instead of the bins' hazards.

    Attributes
    ----------
    mean, scale : buffers [D]
        Standardise the embeddings; set from the training slides, so that the exported head needs nothing beside it.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        dim: int,
        outputs: int,
        *,
        hidden: int = HIDDEN,
        attention: int = ATTENTION,
        dropout: float = DROPOUT,
        survival: bool = False,
    ) -> None:
        super().__init__()
        self.survival = survival
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.represent = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.tanh = nn.Linear(hidden, attention)
        self.gate = nn.Linear(hidden, attention)
        self.score = nn.Linear(attention, 1)
        self.drop = nn.Dropout(dropout)
        self.classify = nn.Linear(hidden, outputs)

    def bag(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [N, D] -> raw outputs [C] and attention [N], which sums to 1."""
        h = self.represent((embeddings - self.mean) * self.scale)  # [N, H]
        weights = self.score(self.drop(torch.tanh(self.tanh(h)) * torch.sigmoid(self.gate(h))))[:, 0]
        attention = torch.softmax(weights, dim=0)
        return self.classify(attention @ h), attention

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings float32 [N, D] -> logits [C] (survival: risk [1]) and attention [N]. What is exported."""
        outputs, attention = self.bag(embeddings)
        return (risk_score(outputs)[None] if self.survival else outputs), attention


def risk_score(hazard_logits: Tensor) -> Tensor:
    """One number from the bins' hazard logits [..., B]: the log cumulative hazard at the last bin; higher is sooner.

    The discrete cumulative hazard is -sum log(1 - h) = sum softplus(logit) (Gensheimer & Narasimhan 2019).
    """
    return functional.softplus(hazard_logits).sum(-1).clamp_min(1e-6).log()


def hazard_loss(hazard_logits: Tensor, bin_index: Tensor, event: Tensor) -> Tensor:
    """Negative log likelihood of a discrete-time survival model, mean over slides.

    Parameters
    ----------
    hazard_logits : float [M, B]
        Logit of the hazard of each bin: P(event in the bin | alive at its start).
    bin_index : int [M]
        The bin of the event or of the censoring.
    event : bool [M]
        A censored slide is known to have lived through the bins before its own only.
    """
    bins = torch.arange(hazard_logits.shape[1], device=hazard_logits.device)
    before = bins[None] < bin_index[:, None]
    at = (bins[None] == bin_index[:, None]) & event[:, None]
    survived = functional.logsigmoid(-hazard_logits) * before  # log(1 - h)
    died = functional.logsigmoid(hazard_logits) * at  # log h
    return -(survived + died).sum(1).mean()
