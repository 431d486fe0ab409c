"""Connected pieces of a mask: their areas, without the small ones, grown.

What NumPy does in 64 bits is done in bands: a mask may have 16 million pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BAND_ROWS = 128


def areas(labels: NDArray[np.int32], count: int, where: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Pixels of each piece, int64 [count + 1]; of those in `where` alone, if it is given. Entry 0 is the background."""
    total = np.zeros(count + 1, np.int64)
    for first in range(0, len(labels), BAND_ROWS):
        rows = slice(first, first + BAND_ROWS)
        band = labels[rows].ravel() if where is None else labels[rows][where[rows]]
        total += np.bincount(band, minlength=count + 1)
    return total


def drop_small(mask: NDArray[np.bool_], min_area: float) -> NDArray[np.bool_]:
    """The mask without pieces of fewer pixels than `min_area`."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    large = areas(labels, count) >= min_area
    large[0] = False
    keep = np.empty(mask.shape, bool)
    for first in range(0, len(labels), BAND_ROWS):
        rows = slice(first, first + BAND_ROWS)
        keep[rows] = large[labels[rows]]
    return keep


def some_of(values: NDArray[np.float32], where: NDArray[np.bool_], most: int = 100_000) -> NDArray[np.float32]:
    """Every n-th of the values in `where`, row by row, so that about `most` remain; float32 [k]."""
    step = max(1, int(np.count_nonzero(where)) // most)
    taken, seen = [], 0
    for first in range(0, len(values), BAND_ROWS):
        rows = slice(first, first + BAND_ROWS)
        band = values[rows][where[rows]]
        taken.append(band[-seen % step :: step])
        seen += len(band)
    return np.concatenate(taken)


def dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Grow by `radius` pixels to every side and corner."""
    grown: NDArray[np.bool_] = ndimage.maximum_filter(mask.view(np.uint8), size=2 * radius + 1).view(np.bool_)
    return grown
