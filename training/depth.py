"""How deep each spot was sequenced, and scores that do not depend on it.

Rank scores ask little of depth, and yet follow it: a richer spot ranks more genes. Where a score should tell nothing of
depth, it is taken out: by least squares within the section ("residual"), or by thinning every spot's counts to one
depth before scoring ("downsample").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .gene_sets import GeneSets
from .metrics import without_depth
from .scoring import GeneStatistics, Scores, as_counts, score

Depth = Literal["none", "residual", "downsample"]
DEPTH_QUANTILE = 0.1
"""Counts are thinned to those of the section's poorest tenth; spots below keep theirs."""


def spot_depth(counts: Any) -> NDArray[np.float64]:
    """Log of the counts and log of the genes detected in each spot: float64 [N, 2], from counts [N, G]."""
    matrix = sparse.csr_array(counts)
    totals = np.asarray(matrix.sum(axis=1), np.float64).ravel()
    genes = np.asarray((matrix > 0).sum(axis=1), np.float64).ravel()
    return np.column_stack([np.log1p(totals), np.log1p(genes)])


def downsample(counts: Any, total: float, rng: np.random.Generator) -> sparse.csr_array:
    """Each spot's counts thinned at random to `total` on average; poorer spots stay as they are."""
    matrix = sparse.csr_array(counts).astype(np.float64, copy=True)
    sums = np.asarray(matrix.sum(axis=1), np.float64).ravel()
    share = np.divide(total, sums, out=np.ones_like(sums), where=sums > total)
    matrix.data = rng.binomial(np.rint(matrix.data).astype(np.int64), np.repeat(share, np.diff(matrix.indptr))) * 1.0
    matrix.eliminate_zeros()
    return matrix


def score_spots(
    counts: Any,
    genes: Sequence[str],
    sets: GeneSets,
    method: str,
    depth: Depth = "none",
    *,
    statistics: GeneStatistics | None = None,
) -> Scores:
    """Scores of a section's spots, independent of depth where asked for.

    Parameters
    ----------
    depth : str
        "residual": what log counts and log genes explain within the section is subtracted; its mean stays.
        "downsample": counts are thinned to the section's 10 % quantile first; the draw is the same every time.

    Raises
    ------
    DataError
        As `scoring.score`.
    """
    if depth == "downsample":
        matrix = as_counts(counts, len(genes))
        total = float(np.quantile(np.asarray(matrix.sum(axis=1)), DEPTH_QUANTILE)) if matrix.shape[0] else 0.0
        return score(downsample(matrix, total, np.random.default_rng(0)), genes, sets, method, statistics=statistics)
    found = score(counts, genes, sets, method, statistics=statistics)
    if depth == "none" or not len(found.values):
        return found
    left = without_depth(found.values, spot_depth(counts)) + found.values.mean(axis=0, dtype=np.float64)
    return Scores(np.where(found.mask, left, 0).astype(np.float32), found.mask)
