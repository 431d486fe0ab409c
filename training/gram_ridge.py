"""Ridge over many sections, from sums alone: each section is read once, and no table of all spots is made.

X'X, X'y and y'y of each fold are summed over its sections; the training part of a fold is the total less the fold, and
so is its error, penalty by penalty. The cost is one pass over the spots and one eigendecomposition a fold, whatever the
number of sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .dealing import deal_out

Floats = NDArray[np.float64]
LEAVE_ONE_OUT = 20
"""Up to so many groups each is a fold of its own."""
FOLDS = 10
"""Beyond, groups are dealt to so many folds, whole."""


def inverse_deviation(sd: Floats, floor: float) -> Floats:
    """What scales features of deviations [D], with `floor` as in `ridge.fit_ridge`; 0 for those that do not vary."""
    if floor > 0 and sd.size:
        sd = np.maximum(sd, np.quantile(sd, floor))
    return np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 1e-12)


@dataclass(eq=False)
class Moments:
    """Sums over spots of features x [D] and targets y [P], both less fixed shifts (which keep the sums exact).

    Attributes
    ----------
    count : int
    x, y : float64 [D], [P]
    xx, xy : float64 [D, D], [D, P]
    yy : float64 [P]
        Of squares.
    """

    count: int
    x: Floats
    y: Floats
    xx: Floats
    xy: Floats
    yy: Floats

    @classmethod
    def none(cls, dim: int, targets: int) -> Moments:
        """Of no spots."""
        return cls(
            0, np.zeros(dim), np.zeros(targets), np.zeros((dim, dim)), np.zeros((dim, targets)), np.zeros(targets)
        )

    def add(self, x: Floats, y: Floats) -> None:
        """Take spots [N, D] and [N, P] in."""
        self.count += len(x)
        self.x += x.sum(axis=0)
        self.y += y.sum(axis=0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += np.einsum("np,np->p", y, y)

    def plus(self, other: Moments, sign: int = 1) -> Moments:
        """The sums of both, or of this without the other."""
        a, b = vars(self), vars(other)
        return Moments(**{k: a[k] + sign * b[k] for k in a})


class Fit:
    """One eigendecomposition of the standardised training features, for every penalty.

    Parameters
    ----------
    training : Moments
    floor : float
        As `ridge.fit_ridge`.
    """

    def __init__(self, training: Moments, floor: float) -> None:
        n = max(training.count, 1)
        self.x_mean, self.y_mean = training.x / n, training.y / n
        centred = training.xx - n * np.outer(self.x_mean, self.x_mean)
        sd = np.sqrt(np.maximum(np.diagonal(centred) / n, 0))
        self.scale = inverse_deviation(sd, floor)
        self.values, self.vectors = np.linalg.eigh(centred * np.outer(self.scale, self.scale))
        cross = training.xy - n * np.outer(self.x_mean, self.y_mean)
        self.right = self.vectors.T @ (cross * self.scale[:, None])

    def _shrunk(self, alpha: float) -> Floats:
        return np.asarray(self.right / (np.maximum(self.values, 0) + alpha)[:, None])

    def weights(self, alpha: float) -> Floats:
        """Weights [D, P] for features that are centred but not scaled."""
        return np.asarray(self.scale[:, None] * (self.vectors @ self._shrunk(alpha)))

    def errors(self, held: Moments, alphas: Sequence[float]) -> Floats:
        """Squared errors [A, P], summed over the spots that `held` sums."""
        m, p = self.x_mean, self.y_mean
        xx = held.xx - np.outer(held.x, m) - np.outer(m, held.x) + held.count * np.outer(m, m)
        xy = held.xy - np.outer(held.x, p) - np.outer(m, held.y) + held.count * np.outer(m, p)
        yy = held.yy - 2 * held.y * p + held.count * p**2
        turn = self.scale[:, None] * self.vectors
        inner, cross = turn.T @ xx @ turn, turn.T @ xy
        found = [(w, inner @ w) for w in map(self._shrunk, alphas)]
        return np.stack([yy - 2 * (cross * w).sum(axis=0) + (w * around).sum(axis=0) for w, around in found])


def fit_over_sections(
    x: Sequence[NDArray[np.floating]],
    y: Sequence[NDArray[np.floating]],
    names: Sequence[str],
    alphas: Sequence[float],
    *,
    floor: float = 0.0,
) -> tuple[Floats, Floats, Floats]:
    """Weights [D, P], intercept [P] and the penalty of each target [P], chosen on groups that were left out.

    Parameters
    ----------
    x, y : sequence of float [N, D], [N, P]
        Of each section; may be mapped files, each is read once.
    names : sequence of str
        The group of each section. One is left out at a time, or a tenth of them where they are many; of a single group
        the first penalty is taken.
    alphas : sequence of float
        The penalties to choose from.
    floor : float
        As `ridge.fit_ridge`.
    """
    dim, targets = x[0].shape[1], y[0].shape[1]
    x_shift, y_shift = (np.asarray(part[0], np.float64).mean(axis=0) for part in (x, y))
    fold_of = _dealt(names, [len(part) for part in y])
    folds = [Moments.none(dim, targets) for _ in range(max(fold_of.values()) + 1)]
    for features, wanted, name in zip(x, y, names, strict=True):
        folds[fold_of[name]].add(np.asarray(features, np.float64) - x_shift, np.asarray(wanted, np.float64) - y_shift)
    total = Moments.none(dim, targets)
    for fold in folds:
        total = total.plus(fold)
    error = np.zeros((len(alphas), targets))
    if len(folds) > 1 and len(alphas) > 1:
        for fold in folds:
            error += Fit(total.plus(fold, -1), floor).errors(fold, alphas)
    chosen = np.asarray(alphas, np.float64)[error.argmin(axis=0)]
    whole = Fit(total, floor)
    weights = np.empty((dim, targets))
    for a in np.unique(chosen):
        weights[:, chosen == a] = whole.weights(float(a))[:, chosen == a]
    intercept = y_shift + whole.y_mean - (x_shift + whole.x_mean) @ weights
    return weights, np.asarray(intercept), chosen


def _dealt(names: Sequence[str], sizes: Sequence[int]) -> dict[str, int]:
    """The fold of each group."""
    spots: dict[str, int] = {}
    for name, size in zip(names, sizes, strict=True):
        spots[name] = spots.get(name, 0) + size
    if len(spots) <= LEAVE_ONE_OUT:
        return {name: i for i, name in enumerate(spots)}
    ordered = sorted(spots)
    return dict(zip(ordered, deal_out([spots[name] for name in ordered], FOLDS), strict=True))
