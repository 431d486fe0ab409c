"""Ranks of numbers; `scipy.stats`, which has them too, takes half a second to import."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks from 1, float64 [N]; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(shared[place.reshape(-1)], np.float64)
