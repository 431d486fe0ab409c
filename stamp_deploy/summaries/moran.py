"""Moran's I: whether neighbouring tiles resemble each other more than tiles anywhere.

I = n / W * sum_ij w_ij (x_i - m)(x_j - m) / sum_i (x_i - m)^2, with w_ij = 1 for tiles that share an edge (rook
contiguity) and W the sum of all w (Moran 1950, Biometrika 37, 17-23). Without any pattern it is about -1 / (n - 1).
Tests compare it with esda.Moran of PySAL. No p value is given: with thousands of tiles it is always tiny and says
nothing of how strong the pattern is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .blocks import Blocks
from .neighbours import neighbour_pairs
from .tile_scores import TileScores

MIN_TILES = 4


def morans_i(tiles: TileScores, blocks: Blocks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Moran's I of each pathway, unweighted, and its replicates.

    Returns
    -------
    float64 [P]
        NaN where all scores are equal, no two tiles touch, or there are fewer than `MIN_TILES`.
    float64 [replicates, P]
        A pair of neighbours belongs to the block of its left or upper tile.
    """
    x, pairs = tiles.values, neighbour_pairs(tiles.cells)
    if len(x) < MIN_TILES or len(pairs) == 0:
        return np.full(x.shape[1], np.nan), np.full((len(blocks.draws), x.shape[1]), np.nan)
    x = x - x.mean(axis=0)  # the same I, and no digits lost to a large mean
    first, second = x[pairs[:, 0]], x[pairs[:, 1]]
    per_tile = np.zeros((len(x), 3, x.shape[1]))
    np.add.at(per_tile, pairs[:, 0], np.stack([np.ones_like(first), first * second, first + second], axis=1))
    per_tile = np.concatenate([per_tile, np.stack([np.ones_like(x), x, x**2], axis=1)], axis=1)
    return _ratio(per_tile.sum(axis=0)), _ratio(np.moveaxis(blocks.sums(per_tile), 1, 0))


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """I out of sums over pairs (1, x_i x_j, x_i + x_j) and over tiles (1, x, x^2), the first axis of `sums`."""
    pairs, products, ends, n, total, squares = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        spread = squares - n * mean**2
        together = products - mean * ends + pairs * mean**2
        found = n / pairs * together / spread
    # A constant map has no spread but rounding's.
    return np.where(spread > 1e-12 * np.maximum(squares, 1e-300), found, np.nan)
