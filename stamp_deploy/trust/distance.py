"""Distances from the reference, as fitting and judging compute them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle.reference import EmbeddingReference, TrustReference
from .statistics import STATISTICS


def tile_distances(reference: TrustReference, measures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mahalanobis distance of each tile's ten statistics: float64 [N] for `measures` [N, 14]."""
    return mahalanobis(measures[:, : len(STATISTICS)], reference.centre, reference.whiten)


def embedding_distances(reference: EmbeddingReference, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mahalanobis distance of each embedding on the leading components: float64 [N]."""
    return mahalanobis(embedding.astype(np.float64), reference.centre, reference.whiten)


def mahalanobis(
    values: NDArray[np.float64], centre: NDArray[np.float64], whiten: NDArray[np.float64]
) -> NDArray[np.float64]:
    """|(value - centre) @ whiten| of each row, float64 [N]."""
    return np.asarray(np.linalg.norm((values - centre) @ whiten, axis=1))
