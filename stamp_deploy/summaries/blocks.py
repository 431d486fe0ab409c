"""Intervals by a block bootstrap over space.

Neighbouring tiles resemble each other, so that resampling single tiles would give intervals that are far too narrow.
Whole square blocks of tiles are drawn instead, with replacement, as many as hold tissue (Hall 1985, Resampling a
coverage pattern; Lahiri 2003, Resampling methods for dependent data, chapter 12). The side of a block is n ** (1 / 4)
tiles: the volume of the best block grows as n ** (d / (d + 2)), d = 2 (Lahiri, section 12.3; its constant depends on
the unknown field and is taken as 1). Everything summarised here follows from sums over tiles, so that a replicate is
a sum of block sums.

An interval tells how far a figure depends on which part of this slide was seen. It covers neither the model's error nor
another section, scan, stain or patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .tile_scores import TileScores

REPLICATES = 1000
SEED = 20261126
COVERAGE = 0.95
MIN_SIDE = 2
"""Least tiles along a block's side: a block of one tile would take neighbours for independent."""
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
        return f"the tissue fills {self.count} blocks of {self.side_um:.0f} um, and {MIN_BLOCKS} are needed"

    def sums(self, per_tile: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over each replicate's tiles, float64 [replicates, ...], of values [N, ...]."""
        by_block = np.zeros((self.count, *per_tile.shape[1:]))
        np.add.at(by_block, self.member, per_tile)
        flat: NDArray[np.float64] = self.draws @ by_block.reshape(self.count, -1)
        return flat.reshape(len(self.draws), *per_tile.shape[1:])


def make_blocks(tiles: TileScores) -> Blocks:
    """Lay square blocks over the grid and draw the replicates; the same tiles give the same draws."""
    side = max(MIN_SIDE, math.ceil(len(tiles) ** 0.25))
    _, member = np.unique(tiles.cells // side, axis=0, return_inverse=True)
    member = member.reshape(-1).astype(np.int64)
    count = int(member.max()) + 1 if len(member) else 0
    draws = np.empty((0, count))
    if count >= MIN_BLOCKS:
        equal = np.full(count, 1 / count)
        draws = np.random.default_rng(SEED).multinomial(count, equal, REPLICATES).astype(np.float64)
    return Blocks(side, side * tiles.step_um, count, member, draws)


def limits(replicates: NDArray[np.float64]) -> list[tuple[float, float] | None]:
    """Percentile limits at `COVERAGE` for each column of replicates [B, P]; None where there are no replicates.

    Replicates without a finite value (one that drew tiles of one score alone has no Moran's I) are left out.
    """
    edges = [50 * (1 - COVERAGE), 50 * (1 + COVERAGE)]
    found: list[tuple[float, float] | None] = []
    for column in replicates.T:
        finite = column[np.isfinite(column)]
        low, high = np.percentile(finite, edges) if len(finite) else (math.nan, math.nan)
        found.append((float(low), float(high)) if len(finite) else None)
    return found
