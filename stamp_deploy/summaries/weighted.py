"""Mean, spread and quantiles of scores, each tile weighted by the tissue in it.

A tile at the edge of the tissue shows mostly glass, and scores differently for that reason alone (Spearman -0.47
between score and tissue fraction was measured on a demo slide). Weighted by tissue, a summary speaks of tissue area.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (5, 25, 50, 75, 95)


def usable_weights(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """The weights in float64; equal ones where none is above 0."""
    taken = weights.astype(np.float64)
    return taken if taken.sum() > 0 else np.ones(len(taken))


def weighted_mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each column: float64 [P] of values [N, P], weights [N]."""
    mean: NDArray[np.float64] = weights @ values / weights.sum()
    return mean


def weighted_sd(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation of each column: float64 [P]; 0 for a single tile.

    sqrt(sum w (x - mean)^2 / ((M - 1) / M * sum w)) with M the number of weights above 0, as the NIST handbook of
    Dataplot gives it ("Weighted standard deviation"). With equal weights it is the usual one, with n - 1.
    """
    count = int((weights > 0).sum())
    if count < 2:
        return np.zeros(values.shape[1])
    squares = weights @ (values - weighted_mean(values, weights)) ** 2
    sd: NDArray[np.float64] = np.sqrt(squares / ((count - 1) / count * weights.sum()))
    return sd


def weighted_percentiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], percents: tuple[int, ...] = PERCENTILES
) -> NDArray[np.float64]:
    """The smallest score at or below which so many percent of the tissue lie: float64 [len(percents), P].

    The inverse of the weighted distribution function (method "inverted_cdf" of `numpy.quantile`), the one definition
    that numpy has for weights.
    """
    order = np.argsort(values, axis=0, kind="stable")
    below = np.cumsum(weights[order], axis=0) / weights.sum()
    rows = [np.minimum((below < percent / 100 - 1e-12).sum(axis=0), len(values) - 1) for percent in percents]
    picked = np.take_along_axis(order, np.stack(rows), axis=0)
    return np.take_along_axis(values, picked, axis=0)
