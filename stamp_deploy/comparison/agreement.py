"""How well two sets of scores of the same tiles agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_PAIRS = 3
FEW_PAIRS = 100
"""With fewer the comparison warns: a limit of agreement is then uncertain by more than a third of the sd."""
LIMIT_SD = 1.96
"""Limits of agreement hold about 95 % of normally distributed differences."""


@dataclass(frozen=True)
class Agreement:
    """One pathway; differences are the second result minus the first.

    Attributes
    ----------
    pairs : int
    mean_first, mean_second : float
    bias : float
        Mean difference.
    sd : float
        Standard deviation of the differences, n - 1.
    low, high : float
        Limits of agreement, bias -/+ 1.96 sd (Bland and Altman 1986, Lancet 327, 307-310). Neighbouring tiles resemble
        each other: the limits describe these tiles, and have no interval of their own.
    largest : float
        Largest absolute difference.
    pearson_r : float or None
        None where one of the two is constant.
    ccc : float or None
        Lin's concordance correlation (Lin 1989, Biometrics 45, 255-268; variances with n): 1 only where the scores are
        the same, not where they are merely proportional. None where both are constant and equal.
    """

    name: str
    pairs: int
    mean_first: float
    mean_second: float
    bias: float
    sd: float
    low: float
    high: float
    largest: float
    pearson_r: float | None
    ccc: float | None


def limit_uncertainty_sd(pairs: int) -> float:
    """Half of the 95 % interval of a limit of agreement, in sd of the differences: 1.96 sqrt(3 / n) (Bland and Altman
    1986). Tiles that resemble their neighbours make it wider."""
    return LIMIT_SD * float(np.sqrt(3 / pairs))


def agreement(name: str, first: NDArray[np.floating], second: NDArray[np.floating]) -> Agreement:
    """Compare two scores per tile, float [M] each, M of at least `MIN_PAIRS`."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    difference = b - a
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    together = float(((a - a.mean()) * (b - b.mean())).mean())
    spread = float(a.std() * b.std())
    apart = float(a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    return Agreement(
        name=name,
        pairs=len(a),
        mean_first=float(a.mean()),
        mean_second=float(b.mean()),
        bias=bias,
        sd=sd,
        low=bias - LIMIT_SD * sd,
        high=bias + LIMIT_SD * sd,
        largest=float(np.abs(difference).max()),
        pearson_r=together / spread if spread > 0 else None,
        ccc=2 * together / apart if apart > 0 else None,
    )
