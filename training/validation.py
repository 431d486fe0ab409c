"""What training stops on, and how far the embedding has moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .metrics import section_median_r
from .model import RunInfo, StampModel
from .model.embed import embed_tiles
from .sections import TrainSection


def validation_r(
    model: StampModel,
    info: RunInfo,
    sections: Sequence[TrainSection],
    embeddings: Sequence[NDArray[np.float32]] | None = None,
) -> float:
    """Mean over sections of the median over pathways of Pearson r of the pathway head, against unsmoothed scores.

    Parameters
    ----------
    embeddings : sequence of float32 [N, D], optional
        Of each section's tiles, where they are there already.
    """
    values = []
    for i, section in enumerate(sections):
        z = torch.from_numpy(embed_tiles(model, info, section.tiles) if embeddings is None else embeddings[i])
        with torch.inference_mode():
            device = model.pathway.weight.device
            predicted = model.pathway(z.to(device)).float().cpu().numpy()
        values.append(section_median_r(section.scores, predicted, section.mask))
    known = [value for value in values if np.isfinite(value)]  # a panel may measure none of the targets
    return float(np.mean(known)) if known else float("nan")


def mean_cosine(a: list[NDArray[np.float32]], b: list[NDArray[np.float32]]) -> float:
    """Mean cosine between rows of two lists of embeddings, over the columns that both have."""
    x, y = np.concatenate(a).astype(np.float64), np.concatenate(b).astype(np.float64)
    width = min(x.shape[1], y.shape[1])  # an ST token comes after what the frozen model has
    x, y = x[:, :width], y[:, :width]
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(((x * y).sum(axis=1) / np.maximum(norms, 1e-12)).mean())
