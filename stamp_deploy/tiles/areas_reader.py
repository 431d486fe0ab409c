"""Tiles of a level whose storage tiles lie in several grids: areas that were scanned apart, each at its origin.

A tile lies in one area, and is read by that area's own reader; or in none, and is glass that was never scanned; or it
touches several, and is then read as a region, by the reader that opened the slide. Areas are far apart: few tiles do.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from ..codecs import Coding
from ..errors import SlideError
from ..grid import TileSet
from ..slide import Slide
from ..slide.storage import StorageGrid
from .codec_reader import CodecReader
from .jpeg_reader import JpegReader
from .read_plan import ReadPlan, choose_plan
from .reader import Reader, StageTimes, Stop, TileStatus
from .region_reader import RegionReader

GLASS, SEVERAL = -1, -2
"""Owners of tiles that touch no area, and more than one."""


def open_storage(slide: Slide, tileset: TileSet, *, threads: int, exact: bool, stop: Stop) -> Reader:
    """The reader of a slide that has an index of storage tiles.

    Raises
    ------
    SlideError
        The shared JPEG tables are damaged, the storage tiles are too large, or a file cannot be opened.
    """
    index = slide.storage
    if index is None:
        raise SlideError("has no index of storage tiles", path=slide.path, remedy="read it by another route")
    scales = [index.scales(level) for level in range(len(slide.levels))]
    plan = choose_plan(slide.levels, tileset.grid, route=slide.route.name, scales=scales, exact=exact)
    grids = index.levels[plan.level]
    if isinstance(grids, str):
        raise SlideError(grids, path=slide.path, remedy="read it by another route")
    if len(grids) == 1:
        return _reader_of(grids[0])(slide, tileset, grids[0], plan, threads=threads, exact=exact, stop=stop)
    return AreasReader(slide, tileset, grids, plan, threads=threads, exact=exact, stop=stop)


def _reader_of(grid: StorageGrid) -> type[JpegReader]:
    return JpegReader if grid.coding is Coding.JPEG else CodecReader


class AreasReader:
    """Fills tiles from several grids, one after the other (see Reader).

    Parameters
    ----------
    grids : tuple of StorageGrid
        Those of the level that `plan` chose.

    The others are JpegReader's.
    """

    order: NDArray[np.int64]

    def __init__(
        self,
        slide: Slide,
        tileset: TileSet,
        grids: tuple[StorageGrid, ...],
        plan: ReadPlan,
        *,
        threads: int,
        exact: bool,
        stop: Stop,
    ) -> None:
        self.plan, self._stop = plan, stop
        self.failure: SlideError | None = None
        self._owner = owners(slide, tileset, grids, plan)
        self._regions = RegionReader(slide, tileset, stop)
        self._areas: list[JpegReader] = []
        self._own: list[NDArray[np.int64]] = []
        try:
            for number, grid in enumerate(grids):
                own = np.flatnonzero(self._owner == number)
                self._own.append(own)
                self._areas.append(
                    _reader_of(grid)(slide, tileset.part(own), grid, plan, threads=threads, exact=exact, stop=stop)
                )
        except BaseException:
            self.close()
            raise
        rest = np.flatnonzero(self._owner < 0)
        self.order = np.concatenate(
            [*(own[area.order] for own, area in zip(self._own, self._areas, strict=True)), rest]
        )

    @property
    def times(self) -> StageTimes:
        """Of all areas so far."""
        return sum((area.times for area in self._areas), self._regions.times)

    def fill(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decode and assemble the tiles at `index`, which continue `order`; see Reader."""
        status = np.full(len(index), TileStatus.TIMEOUT, np.uint8)
        owner = self._owner[index]
        edges = np.concatenate([[0], np.flatnonzero(np.diff(owner)) + 1, [len(index)]])
        for start, stop in itertools.pairwise(edges.tolist()):
            part = slice(start, stop)
            number = int(owner[start])
            if self._stop.reached:
                break
            if number == GLASS:
                out[part], status[part] = 255, TileStatus.OK
            elif number == SEVERAL:
                status[part] = self._regions.fill(index[part], out[part])
                self.failure = self._regions.failure
            else:
                own = np.searchsorted(self._own[number], index[part])
                status[part] = self._areas[number].fill(own, out[part])
        return status

    def close(self) -> None:
        """End the threads and close the files."""
        for area in self._areas:
            area.close()


def owners(slide: Slide, tileset: TileSet, grids: tuple[StorageGrid, ...], plan: ReadPlan) -> NDArray[np.int64]:
    """The grid that each tile lies in, int64 [N]: its number, GLASS or SEVERAL."""
    level, grid = slide.levels[plan.level], tileset.grid
    left, top = (tileset.coords / (level.downsample_x, level.downsample_y)).T
    right, bottom = left + grid.span_x / level.downsample_x, top + grid.span_y / level.downsample_y
    owner = np.full(len(tileset), GLASS, np.int64)
    for number, area in enumerate(grids):
        touches = (
            (right > area.origin_x) & (left < area.origin_x + area.width)
            & (bottom > area.origin_y) & (top < area.origin_y + area.height)
        )  # fmt: skip
        owner[touches] = np.where(owner[touches] == GLASS, number, SEVERAL)
    return owner
