"""A reader of storage tiles that overlap, each painted where the scanner found it (Ventana BIF)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .by_storage import StorageReader

if TYPE_CHECKING:
    from ..storage.bif_layout import Area, BifLayout


class MosaicReader:
    """Paints the storage tiles of a regular mosaic; of two that overlap the one to the right or below is seen.

    A storage tile of a coarser level holds several of level 0, each of which is painted at its own place. Places are
    rounded to whole pixels of the level.

    Parameters
    ----------
    inner : StorageReader
        Of the pages as they are stored.
    layout : BifLayout
    """

    name = "bif"

    def __init__(self, inner: StorageReader, layout: BifLayout) -> None:
        self._inner, self._layout = inner, layout
        self.vendor, self.levels, self.properties = inner.vendor, inner.levels, inner.properties
        self.transparent: NDArray[np.bool_] | None = None

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """RGB of a region (see Backend.read); what was not scanned is white."""
        scale = self.levels[level].downsample_x
        left, top = round(x / scale), round(y / scale)
        out = np.full((h, w, 3), 255, np.uint8)
        there = np.zeros((h, w), bool)
        for area in self._layout.areas:
            self._paint_area(area, level, left, top, out, there)
        self.transparent = None if there.all() else ~there
        return out

    def _paint_area(
        self, area: Area, level: int, left: int, top: int, out: NDArray[np.uint8], there: NDArray[np.bool_]
    ) -> None:
        """The part of a region, whose corner is at (left, top) of the level, that lies in one area."""
        grids, scale = self._inner.index.levels[level], self.levels[level].downsample_x
        assert not isinstance(grids, str)
        (grid,) = grids
        step_x, step_y = self._layout.advance_x / scale, self._layout.advance_y / scale
        part_w, part_h = grid.tile_width / scale, grid.tile_height / scale
        x0, y0 = area.x / scale - left, area.y / scale - top
        for row in _span(-y0, out.shape[0], step_y, part_h, area.down):
            for column in _span(-x0, out.shape[1], step_x, part_w, area.across):
                down, across = (area.row + row) * part_h, (area.column + column) * part_w
                tile_row, tile_column = int(down // grid.tile_height), int(across // grid.tile_width)
                if tile_row >= grid.sizes.shape[0] or tile_column >= grid.sizes.shape[1]:
                    continue
                if grid.sizes[tile_row, tile_column] == 0 and grid.absent_is_glass:
                    continue
                tile = self._inner.tile(level, 0, tile_row, tile_column)
                in_x, in_y = round(across % grid.tile_width), round(down % grid.tile_height)
                part = tile[in_y : in_y + math.ceil(part_h), in_x : in_x + math.ceil(part_w)]
                _paint(part, round(x0 + column * step_x), round(y0 + row * step_y), out, there)

    def forget(self) -> None:
        self._inner.forget()

    def close(self) -> None:
        self._inner.close()


def _span(begin: float, length: int, step: float, side: float, count: int) -> range:
    """The storage tiles along one axis that may touch a stretch of pixels."""
    return range(max(0, math.floor((begin - side - 1) / step)), min(count, math.ceil((begin + length + 1) / step) + 1))


def _paint(part: NDArray[np.uint8], x: int, y: int, out: NDArray[np.uint8], there: NDArray[np.bool_]) -> None:
    """Copy what of a part, whose corner is at (x, y), lies inside of a picture."""
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + part.shape[1], out.shape[1]), min(y + part.shape[0], out.shape[0])
    if x0 < x1 and y0 < y1:
        out[y0:y1, x0:x1] = part[y0 - y : y1 - y, x0 - x : x1 - x]
        there[y0:y1, x0:x1] = True
