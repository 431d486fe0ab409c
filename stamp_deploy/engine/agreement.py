"""How well two sets of numbers agree: cosines, correlations, bias and slope, largest differences."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..ranks import mean_ranks

Float = NDArray[np.float64]


def row_cosine(a: Float, b: Float) -> Float:
    """Cosine of each row of [N, D] with its partner; two zero rows agree, one zero row does not."""
    norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = norm_a * norm_b
    both_zero = (norm_a == 0) & (norm_b == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.where(product > 0, (a * b).sum(axis=1) / product, np.where(both_zero, 1.0, 0.0))
    return np.where(np.isfinite(product), cosine, np.nan)


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson correlation of two vectors; NaN where either is not finite or only one is constant."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    size_x, size_y = float(np.sqrt(x @ x)), float(np.sqrt(y @ y))
    if size_x == 0 and size_y == 0:
        return 1.0
    if size_x == 0 or size_y == 0:
        return float("nan")
    return float(np.clip((x @ y) / (size_x * size_y), -1.0, 1.0))


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman correlation: Pearson of the mean ranks (ties share theirs)."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    return pearson(mean_ranks(x), mean_ranks(y))


def bias_and_slope(reference: Float, candidate: Float) -> tuple[float, float]:
    """Worst |mean difference| in standard deviations of the reference, and worst |slope - 1|, over the pathways.

    A pathway whose reference is constant has no slope; its bias is taken as it is.
    """
    centred = reference - reference.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    varies = variance > 0
    bias = np.abs((candidate - reference).mean(axis=0)) / np.sqrt(np.where(varies, variance, 1.0))
    slope = (centred * candidate).mean(axis=0) / np.where(varies, variance, 1.0)
    return float(bias.max()), float(np.where(varies, np.abs(slope - 1), 0.0).max())


def norm_error(reference: Float, candidate: Float) -> float:
    """How far the median ratio of row lengths is from 1; rows of length 0 in the reference are left out."""
    length, other = np.linalg.norm(reference, axis=1), np.linalg.norm(candidate, axis=1)
    kept = length > 0
    return abs(float(np.median(other[kept] / length[kept])) - 1) if kept.any() else 0.0


def scaled_max_abs(reference: ArrayLike, candidate: ArrayLike) -> float:
    """Largest difference, over the largest reference value where that is more than 1."""
    a, b = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    return float(np.abs(a - b).max()) / max(1.0, float(np.abs(a).max()))
