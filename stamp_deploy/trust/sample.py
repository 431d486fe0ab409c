"""The tiles of a slide that are measured: some, spread over the slide, on their way from the tiler to the engine."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ..spread import spread
from .statistics import MEASURES, measure_tiles

SAMPLE_TILES = 512
"""At most. A slide's median distance is stable from 50 tiles on (measured on her2st), and 512 show where it is odd."""
MIN_TISSUE = 0.5
"""Tiles with less tissue than this are measured only where too few have more: the reference's tiles lie on tissue."""
ENOUGH_TILES = 64


class TileSample:
    """Measures the tiles that were chosen as they pass by.

    Parameters
    ----------
    tissue_fraction : float32 [M]
        Of every tile of the slide, in the order of the tile set.
    """

    def __init__(self, tissue_fraction: NDArray[np.float32]) -> None:
        self._wanted = chosen(tissue_fraction)
        self._index: list[NDArray[np.int64]] = []
        self._measures: list[NDArray[np.float64]] = []
        self.seconds = 0.0

    def take(self, index: NDArray[np.int64], tiles: NDArray[np.uint8]) -> None:
        """Measure those of `tiles` uint8 [N, T, T, 3] that are wanted; `index` are their places in the tile set."""
        rows = np.flatnonzero(self._wanted[index])
        if not len(rows):
            return
        clock = time.perf_counter()
        for row in rows:  # one by one: a tile stays in the cache, and nothing is copied
            self._measures.append(measure_tiles(tiles[row : row + 1]))
        self._index.append(index[rows])
        self.seconds += time.perf_counter() - clock

    @property
    def index(self) -> NDArray[np.int64]:
        """Places of the measured tiles in the tile set, int64 [K], in the order in which they came."""
        return np.concatenate(self._index) if self._index else np.empty(0, np.int64)

    @property
    def measures(self) -> NDArray[np.float64]:
        """`MEASURES` of each: float64 [K, 14]."""
        return np.concatenate(self._measures) if self._measures else np.empty((0, len(MEASURES)))


def chosen(tissue_fraction: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which tiles are measured: bool [M], `SAMPLE_TILES` or fewer, evenly spread over those with enough tissue."""
    full = np.flatnonzero(tissue_fraction >= MIN_TISSUE)
    pool = full if len(full) >= min(ENOUGH_TILES, len(tissue_fraction)) else np.arange(len(tissue_fraction))
    wanted = np.zeros(len(tissue_fraction), bool)
    if len(pool):
        wanted[pool[spread(len(pool), SAMPLE_TILES)]] = True
    return wanted
