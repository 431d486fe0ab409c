"""Which tiles of two results show the same tissue: matched by position, in microns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ..result import Result


@dataclass(frozen=True, eq=False)
class MatchedTiles:
    """Pairs of tiles.

    Attributes
    ----------
    first, second : int64 [M]
        Positions in the two results.
    distance_um : float64 [M]
        Between the centres of a pair.
    limit_um : float
        The largest distance that was allowed.
    only_first, only_second : int
        Tiles without a partner.
    left_out : int
        Pairs of which a tile is left out of summaries by `SlideTrust`; they are not among the others.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distance_um: NDArray[np.float64]
    limit_um: float
    only_first: int
    only_second: int
    left_out: int

    def __len__(self) -> int:
        return len(self.first)


def match_tiles(one: Result, other: Result, *, all_tiles: bool = False) -> MatchedTiles:
    """Pair each tile with the one of the other result that is nearest to it, where both are each other's nearest.

    Centres may lie half a step of the finer grid apart, measured in microns from the upper left corner of level 0. For
    one slide the microns per pixel of `one` hold for both, so that a run with other --mpp is matched, too. With
    `all_tiles` those that `SlideTrust` leaves out are paired as well.
    """
    same = one.slide.sha256 == other.slide.sha256
    mpp = np.array([one.grid.mpp_x, one.grid.mpp_y])
    other_mpp = mpp if same else np.array([other.grid.mpp_x, other.grid.mpp_y])
    first, second = _centres(one) * mpp, _centres(other) * other_mpp
    steps = (one.grid.step_x * mpp[0], one.grid.step_y * mpp[1],
             other.grid.step_x * other_mpp[0], other.grid.step_y * other_mpp[1])  # fmt: skip
    limit = min(steps) / 2
    if len(first) == 0 or len(second) == 0:
        none = np.empty(0, np.int64)
        return MatchedTiles(none, none, np.empty(0), limit, len(first), len(second), 0)
    distance, nearest = KDTree(second).query(first)
    _, back = KDTree(first).query(second)
    pair = (back[nearest] == np.arange(len(first))) & (distance <= limit)
    a, b = np.flatnonzero(pair), nearest[pair].astype(np.int64)
    counted = (one.counted[a] & other.counted[b]) | all_tiles
    return MatchedTiles(
        a[counted], b[counted], distance[a][counted], limit, len(first) - len(a), len(second) - len(a),
        int((~counted).sum()),
    )  # fmt: skip


def _centres(result: Result) -> NDArray[np.float64]:
    """Centres of the tiles, level-0 pixels: float64 [N, 2]."""
    centres: NDArray[np.float64] = result.coords + np.array([result.grid.span_x, result.grid.span_y]) / 2
    return centres
