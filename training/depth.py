"""How deep each spot was sequenced. Scores follow it: evaluation shows how far."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def spot_depth(counts: Any) -> NDArray[np.float64]:
    """Log of the counts and log of the genes detected in each spot: float64 [N, 2], from counts [N, G]."""
    matrix = sparse.csr_array(counts)
    totals = np.asarray(matrix.sum(axis=1), np.float64).ravel()
    genes = np.asarray((matrix > 0).sum(axis=1), np.float64).ravel()
    return np.column_stack([np.log1p(totals), np.log1p(genes)])
