"""Intervals by a block bootstrap over space.

Neighbouring tiles resemble each other, so that resampling single tiles would give intervals that are far too narrow.
Whole square blocks of tiles are drawn instead, with replacement, as many as hold tissue (Hall 1985, Resampling a
coverage pattern; Lahiri 2003, Resampling methods for dependent data, chapter 12). A block must be large beside the
distance over which tiles resemble each other: its side is twice the `reach` of the pathway (reach.py), and at least
n ** (1 / 4) tiles, as the best block's volume grows as n ** (d / (d + 2)), d = 2 (Lahiri, section 12.3). Where too few
blocks of that size hold tissue there is no interval: it would be too narrow. Percentile limits are widened for the
number of blocks as Student's t is beside the normal distribution (Hesterberg 2015, The American Statistician 69,
371-386, "expanded percentile interval"). All figures follow from sums over tiles: a replicate is a sum of block sums.

The limits are nominal: docs/summaries.md says how often they held the truth on simulated fields, which is less than
95 %. An interval tells how far a figure depends on which part of this slide was seen. It covers neither the model's
error nor another section, scan, stain or patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit  # scipy.stats takes half a second to import

from .tile_scores import TileScores

REPLICATES = 1000
SEED = 20261126
COVERAGE = 0.95
MIN_SIDE = 2
"""Least tiles along a block's side: a block of one tile would take neighbours for independent."""
SIDE_IN_REACHES = 2
"""Side of a block beside the reach of a pathway (our own choice, by the simulations in docs/summaries.md)."""
MIN_BLOCKS = 8
"""Fewer blocks give no interval: of 8 there are 6,435 different draws, of 4 there are 35 (our own choice)."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which block each tile belongs to, and how often each replicate draws each block.

    Attributes
    ----------
    side_tiles : int
        Tiles along the side of a block.
    side_um : float
        The same in microns.
    count : int
        Blocks that hold a tile.
    member : int64 [N]
        The block of each tile.
    draws : float64 [replicates, count]
        How often each block was drawn; without rows where there are too few blocks for an interval.
    """

    side_tiles: int
    side_um: float
    count: int
    member: NDArray[np.int64]
    draws: NDArray[np.float64]

    @property
    def why_none(self) -> str:
        """Why there are no intervals; empty where there are."""
        if len(self.draws):
            return ""
        return (
            f"tiles resemble each other so far that blocks of {self.side_um:.0f} um are needed; tissue lies in "
            f"{self.count} of them, and {MIN_BLOCKS} are the least"
        )

    def sums(self, per_tile: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over each replicate's tiles, float64 [replicates, ...], of values [N, ...]."""
        by_block = np.zeros((self.count, *per_tile.shape[1:]))
        np.add.at(by_block, self.member, per_tile)
        flat: NDArray[np.float64] = self.draws @ by_block.reshape(self.count, -1)
        return flat.reshape(len(self.draws), *per_tile.shape[1:])


def side_tiles(tiles: int, reach: int) -> int:
    """Tiles along the side of a block, for a pathway whose tiles resemble each other over `reach` tiles."""
    return max(MIN_SIDE, math.ceil(math.sqrt(math.sqrt(tiles))), SIDE_IN_REACHES * reach)


def make_blocks(tiles: TileScores, reach: int = 0) -> Blocks:
    """Lay square blocks over the grid and draw the replicates; the same tiles give the same draws."""
    side = side_tiles(len(tiles), reach)
    _, member = np.unique(tiles.cells // side, axis=0, return_inverse=True)
    member = member.reshape(-1).astype(np.int64)
    count = int(member.max()) + 1 if len(member) else 0
    draws = np.empty((0, count))
    if count >= MIN_BLOCKS:
        equal = np.full(count, 1 / count)
        draws = np.random.default_rng(SEED).multinomial(count, equal, REPLICATES).astype(np.float64)
    return Blocks(side, side * tiles.step_um, count, member, draws)


def limits(replicates: NDArray[np.float64], blocks: int) -> list[tuple[float, float] | None]:
    """Percentile limits for each column of replicates [B, P]; None where there are no replicates.

    Replicates without a finite value (one that drew tiles of one score alone has no Moran's I) are left out.
    """
    tail = (1 - COVERAGE) / 2
    if blocks > 1:
        tail = float(ndtr(stdtrit(blocks - 1, tail) * math.sqrt(blocks / (blocks - 1))))
    found: list[tuple[float, float] | None] = []
    for column in replicates.T:
        finite = column[np.isfinite(column)]
        low, high = np.percentile(finite, [100 * tail, 100 * (1 - tail)]) if len(finite) else (math.nan, math.nan)
        found.append((float(low), float(high)) if len(finite) else None)
    return found
