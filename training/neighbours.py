"""The tissue around a spot: the mean over its neighbours on the array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

REACH = 1.6
"""In pitches: the 8 neighbours of a square array (the corners are 1.41 off), the 6 of a hexagonal one."""


def neighbours_mean(values: NDArray[np.floating], xy_um: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mean of values [N, D] over each spot's neighbours, without itself; its own where it has none: float32 [N, D].

    The pitch is the median distance to the nearest spot.
    """
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    tree = cKDTree(xy_um)
    if len(values) < 2:
        return np.asarray(values, np.float32)
    pitch = float(np.median(tree.query(xy_um, k=2)[0][:, 1]))
    pairs = tree.query_pairs(REACH * pitch, output_type="ndarray")
    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    near = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(values), len(values)))
    count = np.asarray(near.sum(axis=1)).ravel()[:, None]
    return np.where(count > 0, (near @ values) / np.maximum(count, 1), values).astype(np.float32)
