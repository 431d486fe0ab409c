"""The model's linear heads as ridge solutions on its embeddings: where training starts, and where it may end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..ridge import fit_ridge_cv
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
    apart is no predictor. The penalty of each pathway is chosen by leaving a section out at a time.
    """
    groups = [np.repeat(s.sample.id, len(s.target)) for s in sections]
    if pathway:
        centred = [e - e.mean(axis=0) for e in embeddings]
        weights, bias = _fit(centred, [s.target for s in sections], groups, sections)
        middle = np.mean([e.mean(axis=0) for e in embeddings], axis=0)
        _set(model.pathway, weights, bias - middle @ weights)
    _set(model.pathway_global, *_fit(list(embeddings), [s.level for s in sections], groups, sections))


def _fit(
    x: list[NDArray[np.float32]],
    y: list[NDArray[np.float32]],
    groups: list[NDArray[np.str_]],
    sections: Sequence[TrainSection],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [D, P] and bias [P]; a pathway is fitted on the sections that measure it, and 0 where none does."""
    masks = np.array([s.mask for s in sections])
    weights, bias = np.zeros((x[0].shape[1], masks.shape[1])), np.zeros(masks.shape[1])
    for pattern in np.unique(masks.T, axis=0):
        use = np.flatnonzero(pattern)
        if not use.size:
            continue
        columns = np.flatnonzero((pattern == masks.T).all(axis=1))
        found = fit_ridge_cv(
            np.concatenate([x[i] for i in use]),
            np.concatenate([y[i][:, columns] for i in use]),
            [str(g) for i in use for g in groups[i]],
        )
        weights[:, columns], bias[columns] = found.weights, found.intercept
    return weights, bias


def _set(head: nn.Linear, weights: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weights.T.astype(np.float32)))
        head.bias.copy_(torch.from_numpy(bias.astype(np.float32)))
