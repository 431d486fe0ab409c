"""The tissue around a spot: the mean over its neighbours on the array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

REACH = 1.6
"""In pitches: the 8 neighbours of a square array (the corners are 1.41 off), the 6 of a hexagonal one."""


def neighbours_mean(values: NDArray[np.floating], xy_um: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mean of values [N, D] over each spot's neighbours, without itself; its own where it has none: float32 [N, D].

    The pitch is the median distance to the nearest spot.
    """
    from scipy.sparse import csr_array

    if len(values) < 2:
        return np.asarray(values, np.float32)
    tree, pitch = _tree(xy_um)
    pairs = tree.query_pairs(REACH * pitch, output_type="ndarray")
    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    near = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(values), len(values)))
    count = np.asarray(near.sum(axis=1)).ravel()[:, None]
    return np.where(count > 0, (near @ values) / np.maximum(count, 1), values).astype(np.float32)


def nearest_rows(xy_um: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Rows of each spot's neighbours, the nearest first: int64 [N, count]; -1 where it has fewer of them."""
    n = len(xy_um)
    out = np.full((n, count), -1, np.int64)
    if n < 2:
        return out
    tree, pitch = _tree(xy_um)
    _, rows = tree.query(xy_um, k=min(count + 1, n), distance_upper_bound=REACH * pitch)
    for i, found in enumerate(np.asarray(rows, np.int64)):
        others = found[(found < n) & (found != i)][:count]
        out[i, : len(others)] = others
    return out


def _tree(xy_um: NDArray[np.floating]) -> tuple[cKDTree, float]:
    """A look-up of places, and the pitch: the median distance to the nearest spot."""
    from scipy.spatial import cKDTree

    tree = cKDTree(xy_um)
    return tree, float(np.median(tree.query(xy_um, k=2)[0][:, 1]))
