"""What a file leaves out: storage tiles of length 0, frames that a sparse file does not hold.

Some formats leave out glass: a sparse TIFF, Philips, DICOM. There it is background, and white. An Aperio slide leaves
out nothing on purpose: OpenSlide takes such a tile of a coarser level from the next finer one, and where level 0 itself
lacks it the pixels are missing, which is damage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import SlideError
from .backends import Level
from .storage.index import StorageIndex
from .tiff import read_pages

_SPARSE = ("generic-tiff", "philips")
_WHOLE = ("aperio",)
_BY_INDEX = (*_SPARSE, "dicom")


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Where a slide has no pixels.

    Attributes
    ----------
    cells : bool [rows, columns]
        True where the file holds nothing.
    cell_w, cell_h : float
        Size of a cell, level-0 pixels; the first one begins at (0, 0).
    """

    cells: NDArray[np.bool_]
    cell_w: float
    cell_h: float

    @property
    def share(self) -> float:
        """Share of all cells, 0 to 1."""
        return float(self.cells.mean())

    def touched(self, coords: NDArray[np.int64], span_x: float, span_y: float) -> NDArray[np.bool_]:
        """Which tiles lie in it, in part or whole: bool [N].

        Parameters
        ----------
        coords : int64 [N, 2]
            Top-left corners (x, y), level-0 pixels.
        span_x, span_y : float
            What a tile covers, level-0 pixels.
        """
        rows, columns = self.cells.shape
        x0 = np.clip((coords[:, 0] / self.cell_w + 1e-6).astype(np.int64), 0, columns)
        y0 = np.clip((coords[:, 1] / self.cell_h + 1e-6).astype(np.int64), 0, rows)
        x1 = np.clip(np.ceil((coords[:, 0] + span_x) / self.cell_w - 1e-6).astype(np.int64), 0, columns)
        y1 = np.clip(np.ceil((coords[:, 1] + span_y) / self.cell_h - 1e-6).astype(np.int64), 0, rows)
        sums = self._sums
        held = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
        return np.asarray(held > 0)

    def raster(self, shape: tuple[int, ...], scale_x: float, scale_y: float) -> NDArray[np.bool_]:
        """The same as a picture of that shape, bool [h, w], of scale_x by scale_y level-0 pixels each."""
        rows = ((np.arange(shape[0]) + 0.5) * scale_y / self.cell_h).astype(np.int64)
        columns = ((np.arange(shape[1]) + 0.5) * scale_x / self.cell_w).astype(np.int64)
        inside = (rows < self.cells.shape[0])[:, None] & (columns < self.cells.shape[1])
        picked = self.cells[np.minimum(rows, self.cells.shape[0] - 1)][:, np.minimum(columns, self.cells.shape[1] - 1)]
        return np.asarray(picked & inside)

    def rectangles(self) -> list[tuple[int, int, int, int]]:
        """The same as (x, y, w, h), level-0 pixels, one for each run of cells in a row."""
        found = []
        for row, cells in enumerate(self.cells):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], cells.view(np.int8), [0]])))
            for start, stop in edges.reshape(-1, 2):
                x, y = int(start * self.cell_w), int(row * self.cell_h)
                found.append((x, y, int(stop * self.cell_w) - x, int((row + 1) * self.cell_h) - y))
        return found

    @cached_property
    def _sums(self) -> NDArray[np.int64]:
        sums = np.zeros((self.cells.shape[0] + 1, self.cells.shape[1] + 1), np.int64)
        sums[1:, 1:] = self.cells.cumsum(0).cumsum(1)
        return sums


def find_left_out(
    path: Path, vendor: str, levels: Sequence[Level], numbers: Sequence[int], storage: StorageIndex | str
) -> tuple[LeftOut | None, LeftOut | None]:
    """What a TIFF or DICOM leaves out: (background, missing), each None where there is none or the format is another.

    Parameters
    ----------
    path : Path
    vendor : str
        OpenSlide's name of the format.
    levels : sequence of Level
    numbers : sequence of int
        The number of each in the file.
    storage : StorageIndex or str
        The slide's storage tiles, where they are known.
    """
    if vendor in _BY_INDEX and not isinstance(storage, str) and len(found := _by_index(levels, storage)) == len(levels):
        return _union(found), None
    if vendor not in _SPARSE + _WHOLE:
        return None, None
    try:
        pages = read_pages(path, vendor if vendor == "philips" else None)
    except SlideError:
        return None, None  # OpenSlide opened it: what it makes of it is all that is known
    of_levels = []
    for level, number in zip(levels, numbers, strict=True):
        if number < len(pages):
            page = pages[number]
            w, h = page.tile_px[0] * level.downsample_x, page.tile_px[1] * level.downsample_y
            of_levels.append(LeftOut(page.absent, w, h))
    if not of_levels:
        return None, None
    if vendor in _WHOLE:
        return None, of_levels[0] if of_levels[0].cells.any() else None
    return _union(of_levels), None


def _by_index(levels: Sequence[Level], storage: StorageIndex) -> list[LeftOut]:
    """Of each level that is one grid."""
    found = []
    for level, grids in zip(levels, storage.levels, strict=True):
        if not isinstance(grids, str) and len(grids) == 1:
            (grid,) = grids
            w, h = grid.tile_width * level.downsample_x, grid.tile_height * level.downsample_y
            found.append(LeftOut(grid.absent, w, h))
    return found


def _union(of_levels: Sequence[LeftOut]) -> LeftOut | None:
    """What any level leaves out is white where that level is looked at: in the overview, or in the tiles."""
    union = of_levels[0]
    for other in of_levels[1:]:
        if other.cells.any():
            more = other.raster(union.cells.shape, union.cell_w, union.cell_h)
            union = LeftOut(union.cells | more, union.cell_w, union.cell_h)
    return union if union.cells.any() else None
