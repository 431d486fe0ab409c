"""The model's linear heads as ridge solutions on its embeddings: where training starts, and where it may end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..ridge import EMBEDDING_FLOOR, fit_ridge_measured
from ..sections import TrainSection
from .stamp_model import StampModel


def set_ridge_heads(
    model: StampModel,
    embeddings: Sequence[NDArray[np.float32]],
    sections: Sequence[TrainSection],
    *,
    pathway: bool = True,
) -> None:
    """Fill `pathway_global`, and `pathway` unless told otherwise, from embeddings [N, D] of each section.

    `pathway` is fitted within sections: embeddings are centred on their section's mean, so that what tells sections
    apart is no predictor. A pathway is fitted on the sections that measure it, its penalty chosen by leaving out one of
    them at a time; it stays 0 where none does.
    """
    names, masks = [s.sample.id for s in sections], [s.mask for s in sections]
    if pathway:
        set_ridge_head(model.pathway, embeddings, sections)
    levels = fit_ridge_measured(embeddings, [s.level for s in sections], masks, names, floor=EMBEDDING_FLOOR)
    _set(model.pathway_global, levels.weights, levels.intercept)


def set_ridge_head(
    head: nn.Linear, embeddings: Sequence[NDArray[np.float32]], sections: Sequence[TrainSection]
) -> None:
    """Fill one head of within-section scores."""
    centred = [e - e.mean(axis=0) for e in embeddings]
    names, masks = [s.sample.id for s in sections], [s.mask for s in sections]
    within = fit_ridge_measured(centred, [s.target for s in sections], masks, names, floor=EMBEDDING_FLOOR)
    middle = np.mean([e.mean(axis=0) for e in embeddings], axis=0)
    _set(head, within.weights, within.intercept - middle @ within.weights)


def _set(head: nn.Linear, weights: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weights.T.astype(np.float32)))
        head.bias.copy_(torch.from_numpy(bias.astype(np.float32)))
