"""Baselines without deep learning: 29 stain and texture features of a tile, and ridge regression.

A model that does not beat these has learned nothing worth shipping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEATURE_UM = 112.0
"""Side of the square, in microns, that the features are computed on."""
ALPHAS = tuple(float(a) for a in np.logspace(-2, 6, 17))
_RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities of haematoxylin, eosin and DAB in R, G, B (Ruifrok & Johnston 2001)."""
_UNMIX = np.linalg.inv(_RUIFROK / np.linalg.norm(_RUIFROK, axis=1, keepdims=True)).astype(np.float32)

FEATURE_NAMES = (
    *(f"{c}_{what}" for what in ("mean", "sd") for c in ("red", "green", "blue")),
    *(f"{c}_{what}" for what in ("mean", "sd") for c in ("haematoxylin", "eosin", "residual")),
    *(f"{c}_p{q}" for c in ("haematoxylin", "eosin", "grey") for q in (5, 25, 50, 75, 95)),
    "haematoxylin_gradient",
    "grey_gradient",
)


def features29(tiles: NDArray[np.uint8], mpp: float, *, block: int = 64) -> NDArray[np.float32]:
    """Stain and texture features: float32 [N, 29], named by FEATURE_NAMES.

    Parameters
    ----------
    tiles : uint8 [N, T, T, 3]
    mpp : float
        Microns per pixel of the tiles. The square of 112 um in their middle is used, or the whole tile where it is
        smaller.
    block : int
        Tiles worked on at once; bounds the memory.
    """
    side = tiles.shape[1]
    keep = min(side, max(2, round(FEATURE_UM / mpp)))
    first = (side - keep) // 2
    out = np.empty((len(tiles), len(FEATURE_NAMES)), np.float32)
    for start in range(0, len(tiles), block):
        part = np.asarray(tiles[start : start + block, first : first + keep, first : first + keep])
        out[start : start + len(part)] = _features(part)
    return out


def hed(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Stain concentrations float32 [..., 3] of RGB uint8 [..., 3]: haematoxylin, eosin and what is left."""
    density = -np.log((tiles.astype(np.float32) + 1) / 256)
    return density @ _UNMIX


def _features(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    n = len(tiles)
    rgb = tiles.reshape(n, -1, 3).astype(np.float32) / 255
    stains = hed(tiles)
    grey = tiles.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    flat = stains.reshape(n, -1, 3)
    columns = [rgb.mean(1), rgb.std(1), flat.mean(1), flat.std(1)]
    for channel in (flat[..., 0], flat[..., 1], grey.reshape(n, -1)):
        columns.append(np.percentile(channel, (5, 25, 50, 75, 95), axis=1).T)
    for image in (stains[..., 0], grey):
        dy, dx = np.gradient(image, axis=(1, 2))
        columns.append(np.hypot(dx, dy).mean(axis=(1, 2))[:, None])
    return np.concatenate(columns, axis=1).astype(np.float32)


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


def fit_ridge(x: NDArray[np.floating], y: NDArray[np.floating], alpha: float | NDArray[np.floating] = 1.0) -> Ridge:
    """Least squares with penalty alpha * |w|^2, on features scaled to unit deviation; the intercept is free.

    Parameters
    ----------
    x : float [N, D]
    y : float [N, P]
    alpha : float or float [P]
    """
    alphas = np.broadcast_to(np.asarray(alpha, np.float64), (y.shape[1],))
    path = _Path(x, y)
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
    """
    names = np.asarray(groups)
    if len(np.unique(names)) < 2:
        names = np.arange(len(y)) * folds // max(len(y), 1)
    error = np.zeros((len(alphas), y.shape[1]))
    for name in np.unique(names):
        held = names == name
        path = _Path(x[~held], y[~held])
        for i, a in enumerate(alphas):
            w = path.weights(a)
            left = y[held] - (path.y_mean + (x[held] - path.x_mean) @ w)
            error[i] += (left**2).sum(axis=0)
    return fit_ridge(x, y, np.asarray(alphas)[error.argmin(axis=0)])


class _Path:
    """One eigendecomposition serves every penalty; over spots where there are fewer spots than features."""

    def __init__(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> None:
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        self.x_mean, self.y_mean = x.mean(axis=0), y.mean(axis=0)
        sd = x.std(axis=0)
        self._scale = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 1e-12)
        z = (x - self.x_mean) * self._scale
        target = y - self.y_mean
        if z.shape[0] < z.shape[1]:
            self._values, vectors = np.linalg.eigh(z @ z.T)
            self._left, self._right = z.T @ vectors, vectors.T @ target
        else:
            self._values, vectors = np.linalg.eigh(z.T @ z)
            self._left, self._right = vectors, vectors.T @ (z.T @ target)

    def weights(self, alpha: float) -> NDArray[np.float64]:
        """Weights [D, P] for features that are centred but not scaled."""
        shrunk = self._right / (np.maximum(self._values, 0) + alpha)[:, None]
        return self._scale[:, None] * (self._left @ shrunk)
