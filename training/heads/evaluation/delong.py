"""The variance of AUROC, and of the difference of two AUROCs on the same slides (DeLong et al. 1988; Sun & Xu 2014)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..metrics import Floats
from .operating import Z


@dataclass(frozen=True)
class Area:
    """An AUROC or a difference of two, its 95 % interval, and the two-sided p value against `null`."""

    value: float
    low: float
    high: float
    p: float

    def to_dict(self) -> dict[str, float]:
        """JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high, "p": self.p}


def delong(positive: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """AUROCs [K] and their covariance [K, K] of scores [K, N] of the same N slides, taken as independent.

    Parameters
    ----------
    positive : bool [N]
        At least two of each kind.
    """
    from scipy.stats import rankdata

    m, n = int(positive.sum()), int((~positive).sum())
    ahead = np.array([rankdata(s) for s in scores])
    cases = (ahead[:, positive] - np.array([rankdata(s[positive]) for s in scores])) / n
    controls = 1 - (ahead[:, ~positive] - np.array([rankdata(s[~positive]) for s in scores])) / m
    covariance = np.atleast_2d(np.cov(cases)) / m + np.atleast_2d(np.cov(controls)) / n
    return cases.mean(axis=1), covariance


def area(positive: NDArray[np.bool_], score: Floats) -> Area:
    """AUROC of one score [N], with p against 1/2; the interval is cut at 0 and 1."""
    values, covariance = delong(positive, score[None])
    found = _normal(float(values[0]), float(covariance[0, 0]), 0.5)
    return Area(found.value, max(0.0, found.low), min(1.0, found.high), found.p)


def area_difference(positive: NDArray[np.bool_], first: Floats, second: Floats) -> Area:
    """AUROC of `first` minus that of `second` on the same slides, with p against 0."""
    values, covariance = delong(positive, np.stack([first, second]))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return _normal(float(values[0] - values[1]), float(variance), 0.0)


def _normal(value: float, variance: float, null: float) -> Area:
    from scipy.special import ndtr

    sd = float(np.sqrt(max(variance, 0.0)))
    if sd == 0:
        return Area(value, value, value, float(value == null))
    return Area(value, value - Z * sd, value + Z * sd, float(2 * ndtr(-abs(value - null) / sd)))
