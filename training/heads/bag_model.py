"""What all slide-level heads share: how embeddings come in, and how a pooled slide becomes logits or hazards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Inputs = Literal["embeddings", "pathways", "both"]
MIN_VARIANCE = 1e-12


@dataclass(frozen=True)
class Readout:
    """Pathway scores as a linear function of the embedding: weight float32 [P, D], bias [P]."""

    weight: Tensor
    bias: Tensor


class BagModel(nn.Module, ABC):
    """A head: the embeddings of a slide's tiles in, one set of outputs out, in any order of the tiles.

    Parameters
    ----------
    dim : int
        D, length of the tile embeddings.
    outputs : int
        Classes; for survival the time bins.
    hidden : int
        Width of the pooled slide.
    survival : bool
        Proportional odds: the hazard logit of a bin is the bin's baseline plus the slide's risk, so that a few events
        suffice. `forward` then gives one risk score instead of the bins' hazards.
    scores : int
        P, pathway scores that join the embedding; 0: none.
    inputs : "embeddings", "pathways" or "both"
        What the head sees; the last two need `scores`. The scores are computed inside the head, by a fixed linear
        read-out, so that it wants nothing but embeddings.

    Attributes
    ----------
    mean, scale : buffers [D]
        Standardise the embeddings; set from the training slides, so that the exported head needs nothing beside it.
    """

    mean: Tensor
    scale: Tensor
    readout_weight: Tensor
    readout_bias: Tensor
    score_mean: Tensor
    score_scale: Tensor

    def __init__(
        self, dim: int, outputs: int, *, hidden: int, survival: bool, scores: int = 0, inputs: Inputs = "embeddings"
    ) -> None:
        super().__init__()
        self.survival, self.kinds = survival, inputs
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        if scores:
            self.register_buffer("readout_weight", torch.zeros(scores, dim))
            self.register_buffer("readout_bias", torch.zeros(scores))
            self.register_buffer("score_mean", torch.zeros(scores))
            self.register_buffer("score_scale", torch.ones(scores))
        self.width = {"embeddings": dim, "pathways": scores, "both": dim + scores}[inputs]
        self.classify = nn.Linear(hidden, 1 if survival else outputs)
        if survival:
            self.baseline = nn.Parameter(torch.zeros(outputs))

    @abstractmethod
    def pool(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Standardised tiles [B, N, W] -> slides [B, H] and attention [B, N], which sums to 1 over the tiles.

        `mask` bool [B, N] is False where a row only fills up the batch; None: nowhere.
        """

    def standardised(self, embeddings: Tensor) -> Tensor:
        """What the head sees of embeddings [..., D]: [..., W]."""
        parts = []
        if self.kinds != "pathways":
            parts.append((embeddings - self.mean) * self.scale)
        if self.kinds != "embeddings":
            scores = functional.linear(embeddings, self.readout_weight, self.readout_bias)
            parts.append((scores - self.score_mean) * self.score_scale)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def bags(self, embeddings: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings [B, N, D] of several slides -> raw outputs [B, C] and attention [B, N]."""
        pooled, attention = self.pool(self.standardised(embeddings), mask)
        raw = self.classify(pooled)
        return (self.baseline + raw if self.survival else raw), attention

    def bag(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [N, D] -> raw outputs [C] and attention [N], which sums to 1."""
        raw, attention = self.bags(embeddings[None])
        return raw[0], attention[0]

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings float32 [N, D] -> logits [C] (survival: risk [1]) and attention [N]. What is exported."""
        outputs, attention = self.bag(embeddings)
        return (risk_score(outputs)[None] if self.survival else outputs), attention

    @torch.no_grad()
    def set_readout(self, readout: Readout) -> None:
        """Take the pathway read-out over."""
        self.readout_weight.copy_(readout.weight)
        self.readout_bias.copy_(readout.bias)

    @torch.no_grad()
    def standardise(self, slides: list[Tensor]) -> None:
        """Mean and 1 / sd of embeddings and scores, each slide [N, D] counting the same."""
        self.mean.copy_(torch.stack([b.float().mean(0) for b in slides]).mean(0))
        square = torch.stack([((b.float() - self.mean) ** 2).mean(0) for b in slides]).mean(0)
        self.scale.copy_(_inverse_root(square))
        if self.kinds != "embeddings":
            scores = [functional.linear(b.float(), self.readout_weight, self.readout_bias) for b in slides]
            self.score_mean.copy_(torch.stack([s.mean(0) for s in scores]).mean(0))
            square = torch.stack([((s - self.score_mean) ** 2).mean(0) for s in scores]).mean(0)
            self.score_scale.copy_(_inverse_root(square))


def _inverse_root(square: Tensor) -> Tensor:
    return torch.where(square > MIN_VARIANCE, square, torch.ones_like(square)).rsqrt()


def masked_softmax(weights: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of weights [..., N] over what `mask` bool, of a shape that fits, leaves."""
    if mask is not None:
        weights = weights.masked_fill(~mask, float("-inf"))
    return torch.softmax(weights, dim=-1)


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
