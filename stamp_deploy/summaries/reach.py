"""How far tiles resemble each other: the distance at which their correlation has faded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .blocks import MIN_BLOCKS, SIDE_IN_REACHES
from .neighbours import neighbour_pairs
from .tile_scores import TileScores

FADED = 0.2
"""Autocorrelation below which tiles no longer count as alike (our own choice, by the simulations in
docs/summaries.md: 0.1 gave much the same intervals and fewer of them)."""
COARSER = 1.2


def reaches(tiles: TileScores) -> list[int]:
    """Per pathway the least number of steps at which the autocorrelation along rows and columns is below `FADED`.

    The autocorrelation at h steps is mean(z_i z_j) over the pairs that lie h apart, over mean(z^2), z about the mean.
    Steps grow by a fifth at a time: a reach is never too short for that. It is looked for as far as blocks for an
    interval fit; what has not faded by then gets the next step.
    """
    z = (tiles.values - tiles.values.mean(axis=0)).astype(np.float32)
    variance = np.einsum("np,np->p", z, z, dtype=np.float64) / max(len(z), 1)
    found = np.zeros(z.shape[1], np.int64)
    open_still = variance > 0
    steps = 0
    while open_still.any():
        steps = max(steps + 1, round(steps * COARSER))
        found[open_still] = steps
        if not _blocks_fit(tiles.cells, SIDE_IN_REACHES * steps):
            break
        pairs = neighbour_pairs(tiles.cells, steps)
        if len(pairs) == 0:
            break
        part = np.flatnonzero(open_still)
        alike = _products(z[:, part], pairs) / variance[part]
        open_still[part[alike < FADED]] = False
    return [int(value) for value in found]


def _products(z: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """mean(z_i z_j) over the pairs, float64 [P]; a piece at a time, so that memory stays small."""
    total = np.zeros(z.shape[1])
    for first in range(0, len(pairs), 1 << 14):
        one, other = pairs[first : first + (1 << 14)].T
        total += np.einsum("mp,mp->p", z[one], z[other], dtype=np.float64)
    return total / len(pairs)


def _blocks_fit(cells: NDArray[np.int64], side: int) -> bool:
    return len(np.unique(cells // side, axis=0)) >= MIN_BLOCKS
