"""Stored tiles as training sees them, by the compiled core: crop, stain jitter, turns and normalisation in one pass.

Each pixel is read once, from the mapped file, and written once, as the model wants it. `augment.py` does the same in
torch, where tiles lie on a device already; tests compare the two.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stamp_deploy import _tiler

from .augment import draw_stains, shifted_corners

Piece = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Tiles uint8 [N, S, S, 3] of a section, and which of them."""


class FloatBuffers:
    """Memory of batches, used again once nothing refers to it: a fresh one costs a page fault each 4 kB.

    Parameters
    ----------
    pinned : bool
        Page-locked, from torch's own pool, for copies to a GPU.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self.pinned = pinned
        self._kept: list[NDArray[np.float32]] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor float32 of this shape that nobody else holds. Its values are what was there before."""
        if self.pinned:
            return torch.empty(shape, pin_memory=True)
        size = int(np.prod(shape))
        with self._lock:
            for place in range(len(self._kept)):
                # two references: the list's, and getrefcount's own argument. A tensor of it would be a third
                if sys.getrefcount(self._kept[place]) == 2 and self._kept[place].size >= size:
                    return torch.from_numpy(self._kept[place][:size].reshape(shape))
            self._kept = [b for b in self._kept if sys.getrefcount(b) > 3]  # what is free is too small; 3 with `b`
            fresh = np.empty(size, np.float32)
            self._kept.append(fresh)
            return torch.from_numpy(fresh.reshape(shape))


def varied_tiles(
    pieces: Sequence[Piece],
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
    rng: np.random.Generator,
    *,
    reach: int = 0,
    hed_jitter: float = 0.0,
    flips: bool = False,
    buffers: FloatBuffers | None = None,
) -> Tensor:
    """Normalised crops of the pieces' tiles, one after the other: float32 [n, 3, side, side].

    Parameters
    ----------
    reach : int
        Crops are moved from the middle by up to so many pixels, or as far as the stored tile allows.
    hed_jitter : float
        See `augment.jitter_stain`; 0: none.
    flips : bool
        One of the 8 flips and quarter turns each.
    buffers : FloatBuffers, optional
        Where the memory comes from.

    Raises
    ------
    UsageError
        The tiles are smaller than `side`.
    """
    count = sum(len(rows) for _, rows in pieces)
    corners = [shifted_corners(tiles.shape[1], len(rows), side, reach, rng) for tiles, rows in pieces]
    mix, shift = (
        draw_stains(count, hed_jitter, rng)
        if hed_jitter > 0
        else (np.empty((0, 3, 3), np.float32), np.empty((0, 3), np.float32))
    )
    turns = rng.integers(0, 8, count).astype(np.uint8) if flips else np.zeros(count, np.uint8)
    out = (buffers or FloatBuffers()).take((count, 3, side, side))
    values, first = out.numpy(), 0
    for (tiles, rows), corner in zip(pieces, corners, strict=True):
        part = slice(first, first + len(rows))
        _tiler.vary_tiles(
            np.ascontiguousarray(tiles), np.ascontiguousarray(rows, np.int64), corner, turns[part], mix[part],
            shift[part], np.asarray(mean, np.float32), np.asarray(std, np.float32), values[part],
        )  # fmt: skip
        first = part.stop
    return out
