"""The general route: regions read by OpenSlide or libvips, area-averaged to the tile's size."""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from .._tiler import Resampler
from ..errors import SlideError
from ..grid import TileSet
from ..slide import Slide
from .read_plan import ReadPlan, choose_plan
from .reader import StageTimes, Stop, TileStatus


class RegionReader:
    """Reads one region per tile; one that cannot be decoded marks its tile CORRUPT, what the file lacks MISSING.

    Parameters
    ----------
    slide : Slide
    tileset : TileSet
    stop : Stop, optional
        Asked before every tile.
    """

    plan: ReadPlan
    order: NDArray[np.int64]

    def __init__(self, slide: Slide, tileset: TileSet, stop: Stop | None = None) -> None:
        self._slide, self._tileset = slide, tileset
        self._stop = stop or Stop()
        self.times = StageTimes()
        self.failure: SlideError | None = None
        self.plan = choose_plan(slide.levels, tileset.grid, route=slide.route.name)
        self.order = np.arange(len(tileset), dtype=np.int64)
        whole = abs(self.plan.residual_x - 1) < 1e-9 and abs(self.plan.residual_y - 1) < 1e-9 and self.plan.level == 0
        self._resampler = None if whole else Resampler(tileset.grid.tile_px, self.plan.residual_x, self.plan.residual_y)

    def fill(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decode the tiles at `index`, in any order, into `out`; see Reader."""
        status = np.full(len(index), TileStatus.TIMEOUT, np.uint8)
        coords, grid = self._tileset.coords[index], self._tileset.grid
        missing = np.zeros(len(index), bool)
        if self._slide.missing is not None:  # OpenSlide shows white there
            missing = self._slide.missing.touched(coords, grid.span_x, grid.span_y)
        for i, (x, y) in enumerate(coords):
            if self._stop.reached:
                break
            if missing[i]:
                status[i] = TileStatus.MISSING
                continue
            try:
                self._tile(int(x), int(y), out[i])
                status[i] = TileStatus.OK
            except SlideError as error:
                self.failure = self.failure or error
                status[i] = TileStatus.CORRUPT
        return status

    def close(self) -> None:
        """Nothing to free: the slide belongs to the caller."""

    def _tile(self, x: int, y: int, out: NDArray[np.uint8]) -> None:
        grid, plan = self._tileset.grid, self.plan
        level = self._slide.levels[plan.level]
        tile = grid.tile_px
        w, h = plan.residual_x * tile, plan.residual_y * tile
        # the region starts on a whole pixel of the level; the fraction goes to the resampling box
        left, top = x / level.downsample_x, y / level.downsample_y
        x0, y0 = math.floor(left + 1e-6), math.floor(top + 1e-6)
        fx, fy = max(left - x0, 0.0), max(top - y0, 0.0)
        clock = time.perf_counter()
        region = self._slide.read_region(
            plan.level,
            round(x0 * level.downsample_x),
            round(y0 * level.downsample_y),
            math.ceil(fx + w - 1e-6),
            math.ceil(fy + h - 1e-6),
        )
        decoded = time.perf_counter()
        self.times.decode_s += decoded - clock
        if self._resampler is None:
            out[:] = region
        else:
            self._resampler.resample(region, fx, fy, out)
        self.times.resample_s += time.perf_counter() - decoded
