"""29 stain and texture features of a tile, without deep learning, and the stains that they are computed from.

A model that does not beat ridge regression on these has learned nothing worth shipping.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.trust.statistics import DENSITY, UNMIX

from .cohort.shards import Tiles

FEATURE_UM = 112.0
"""Side of the square, in microns, that the features are computed on."""
FEATURE_NAMES = (
    *(f"{c}_{what}" for what in ("mean", "sd") for c in ("red", "green", "blue")),
    *(f"{c}_{what}" for what in ("mean", "sd") for c in ("haematoxylin", "eosin", "residual")),
    *(f"{c}_p{q}" for c in ("haematoxylin", "eosin", "grey") for q in (5, 25, 50, 75, 95)),
    "haematoxylin_gradient",
    "grey_gradient",
)


def features29(tiles: Tiles, mpp: float, *, block: int = 64) -> NDArray[np.float32]:
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
    return np.asarray(DENSITY[tiles] @ UNMIX)


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
