"""Ridge regression, whose penalty is chosen on groups that were left out.

With 29 stain features it is the baseline that a model must beat; on embeddings it is the probe of evaluation and the
start of the pathway heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .gram_ridge import fit_over_sections, inverse_deviation

EMBEDDING_FLOOR = 0.9
"""`floor` for embeddings. A feature that hardly varies in training, as a unit behind a ReLU may, would be blown up to
the others' size, and break the prediction of a section where it does vary. By inner splits of her2st C2 to C5 (trained
on two sections, tested on a third) median r is .435 without a floor, .453, .460 and .463 at the quantiles .5, .75 and
.9, and .462 with features as they are."""
ALPHAS = tuple(float(a) for a in np.logspace(-2, 6, 17))


@dataclass(frozen=True, eq=False)
class Ridge:
    """Linear regression with an L2 penalty on standardised features.

    Attributes
    ----------
    weights : float64 [D, P]
    intercept : float64 [P]
    alpha : float64 [P]
        The penalty of each target.
    """

    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]
    alpha: NDArray[np.float64]

    def predict(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Predictions float64 [N, P] for features [N, D]."""
        return np.asarray(x, np.float64) @ self.weights + self.intercept


def fit_ridge(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    alpha: float | NDArray[np.floating] = 1.0,
    *,
    floor: float = 0.0,
) -> Ridge:
    """Least squares with penalty alpha * |w|^2, on features scaled to unit deviation; the intercept is free.

    Parameters
    ----------
    x : float [N, D]
    y : float [N, P]
    alpha : float or float [P]
    floor : float
        Deviations below this quantile of all features' count as that quantile: such features are not blown up.
    """
    alphas = np.broadcast_to(np.asarray(alpha, np.float64), (y.shape[1],))
    path = _Path(x, y, floor)
    weights = np.empty((x.shape[1], y.shape[1]))
    for a in np.unique(alphas):
        weights[:, alphas == a] = path.weights(float(a))[:, alphas == a]
    return Ridge(weights, path.y_mean - path.x_mean @ weights, alphas.copy())


def fit_ridge_cv(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    groups: Sequence[str],
    alphas: Sequence[float] = ALPHAS,
    *,
    folds: int = 5,
    floor: float = 0.0,
) -> Ridge:
    """Ridge whose penalty is chosen for each target by the squared error on groups that were left out.

    Parameters
    ----------
    x : float [N, D]
    y : float [N, P]
    groups : sequence of str, N
        Section or patient of each spot: one group is left out at a time. With a single group, the spots are cut into
        `folds` runs of neighbouring rows.
    alphas : sequence of float
    floor : float
        As `fit_ridge`.
    """
    names = np.asarray(groups)
    if len(np.unique(names)) < 2:
        names = np.arange(len(y)) * folds // max(len(y), 1)
    error = np.zeros((len(alphas), y.shape[1]))
    for name in np.unique(names):
        held = names == name
        path = _Path(x[~held], y[~held], floor)
        for i, predicted in enumerate(path.predictions(x[held], alphas)):
            error[i] += ((y[held] - predicted) ** 2).sum(axis=0)
    return fit_ridge(x, y, np.asarray(alphas)[error.argmin(axis=0)], floor=floor)


def fit_ridge_measured(
    x: Sequence[NDArray[np.floating]],
    y: Sequence[NDArray[np.floating]],
    masks: Sequence[NDArray[np.bool_]],
    names: Sequence[str],
    alpha: float | None = None,
    *,
    floor: float = 0.0,
) -> Ridge:
    """Ridge over sections that do not all measure every target: each target is fitted on the sections that do.

    Parameters
    ----------
    x, y : sequence of float [N, D] and [N, P], one per section
    masks : sequence of bool [P]
        Whether the section measures the target. One that no section measures gets weights of 0 and a penalty of NaN.
    names : sequence of str
        Of the sections: one is left out at a time to choose the penalty, or a tenth of them beyond 20.
    alpha : float, optional
        The penalty, where it is not chosen.
    floor : float
        As `fit_ridge`.
    """
    table = np.array(masks)
    pathways = table.shape[1]
    weights, intercept, chosen = np.zeros((x[0].shape[1], pathways)), np.zeros(pathways), np.full(pathways, np.nan)
    for pattern in np.unique(table.T, axis=0):
        use = [int(i) for i in np.flatnonzero(pattern)]
        if not use:
            continue
        columns = np.flatnonzero((pattern == table.T).all(axis=1))
        own, target, groups = [x[i] for i in use], [y[i][:, columns] for i in use], [names[i] for i in use]
        found = _fit_sections(own, target, groups, alpha, floor)
        weights[:, columns], intercept[columns], chosen[columns] = found.weights, found.intercept, found.alpha
    return Ridge(weights, intercept, chosen)


def _fit_sections(
    x: list[NDArray[np.floating]],
    y: list[NDArray[np.floating]],
    names: list[str],
    alpha: float | None,
    floor: float,
) -> Ridge:
    """Ridge over sections that measure every target: from sums where the spots outnumber the features in every fold."""
    size = {name: sum(len(part) for part, own in zip(y, names, strict=True) if own == name) for name in set(names)}
    if sum(size.values()) - max(size.values()) >= x[0].shape[1] and (alpha is not None or len(size) > 1):
        return Ridge(*fit_over_sections(x, y, names, ALPHAS if alpha is None else (alpha,), floor=floor))
    features, target = np.concatenate(x), np.concatenate(y)
    if alpha is not None:
        return fit_ridge(features, target, alpha, floor=floor)
    return fit_ridge_cv(
        features, target, [name for name, part in zip(names, y, strict=True) for _ in part], floor=floor
    )


class _Path:
    """One eigendecomposition serves every penalty; over spots where there are fewer spots than features."""

    def __init__(self, x: NDArray[np.floating], y: NDArray[np.floating], floor: float) -> None:
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        self.x_mean, self.y_mean = x.mean(axis=0), y.mean(axis=0)
        self._scale = inverse_deviation(x.std(axis=0), floor)
        z = (x - self.x_mean) * self._scale
        target = y - self.y_mean
        self._features = z.T if z.shape[0] < z.shape[1] else None
        if self._features is not None:
            self._values, self._vectors = np.linalg.eigh(z @ z.T)
            self._right = self._vectors.T @ target
        else:
            self._values, self._vectors = np.linalg.eigh(z.T @ z)
            self._right = self._vectors.T @ (z.T @ target)

    def _shrunk(self, alpha: float) -> NDArray[np.float64]:
        return np.asarray(self._right / (np.maximum(self._values, 0) + alpha)[:, None], np.float64)

    def weights(self, alpha: float) -> NDArray[np.float64]:
        """Weights [D, P] for features that are centred but not scaled."""
        inner = self._vectors @ self._shrunk(alpha)
        left = inner if self._features is None else self._features @ inner
        return np.asarray(self._scale[:, None] * left, np.float64)

    def predictions(self, x: NDArray[np.floating], alphas: Sequence[float]) -> Iterator[NDArray[np.float64]]:
        """Predictions [N, P] for features [N, D], at one penalty after the other."""
        z = (np.asarray(x, np.float64) - self.x_mean) * self._scale
        rotated = (z if self._features is None else z @ self._features) @ self._vectors
        for alpha in alphas:
            yield self.y_mean + rotated @ self._shrunk(alpha)
