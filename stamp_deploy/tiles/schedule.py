"""In which order tiles are served, and when each storage tile is decoded and forgotten: pure arithmetic.

Tiles are served strip by strip: a strip is some columns of the grid, served row by row from top to bottom. A
decoded storage tile is used again by the next row and then forgotten, so that memory does not grow with the
slide. A storage tile on the seam of two strips is kept from one to the next, unless keeping the seam of a very
tall slide would cost more than `SEAM_BYTES`: then it is decoded once for each strip.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEAM_BYTES = 32 << 20
STRIP_BYTES = 4 << 20
MIN_STRIP, MAX_STRIP = 24, 96


@dataclass(frozen=True)
class Storage:
    """The storage tiles of a level at the decoding scale.

    Attributes
    ----------
    rows, columns : int
    tile_w, tile_h : int
        Decoded pixels.
    slot_bytes : int
        Memory of a decoded storage tile.
    """

    rows: int
    columns: int
    tile_w: int
    tile_h: int
    slot_bytes: int


@dataclass(frozen=True, eq=False)
class Strip:
    """What one strip needs.

    Attributes
    ----------
    start, stop : int
        Serving positions.
    by_first_use : int64 [n]
        Storage tiles (flat), sorted by the position that first needs them.
    first_use : int64 [n]
        That position, for each of `by_first_use`.
    by_last_use, last_use : int64 [m]
        Storage tiles that can be forgotten, sorted by the last position that needs them.
    """

    start: int
    stop: int
    by_first_use: NDArray[np.int64]
    first_use: NDArray[np.int64]
    by_last_use: NDArray[np.int64]
    last_use: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Serving:
    """The order of tiles, and the strips that it falls into.

    Parameters
    ----------
    corners : float64 [N, 2]
        (x, y) of each tile, decoded pixels.
    grid_columns, grid_rows : int32 [N]
    span_x, span_y : float
        Decoded pixels that a tile covers.
    storage : Storage
    """

    corners: NDArray[np.float64]
    grid_columns: NDArray[np.int32]
    grid_rows: NDArray[np.int32]
    span_x: float
    span_y: float
    storage: Storage

    @property
    def tiles_across(self) -> int:
        """Columns of the grid in a strip."""
        wide = min(max(STRIP_BYTES // self.storage.slot_bytes, MIN_STRIP), MAX_STRIP)
        return max(1, int(wide * self.storage.tile_w / self.span_x))

    def order(self) -> NDArray[np.int64]:
        """TileSet positions in the order of serving."""
        strip = self.grid_columns // self.tiles_across
        return np.lexsort((self.grid_columns, self.grid_rows, strip)).astype(np.int64)

    def strips(self, order: NDArray[np.int64]) -> Iterator[Strip]:
        """The strips, one after the other; only one is held."""
        if len(order) == 0:
            return
        number = self.grid_columns[order] // self.tiles_across
        edges = np.concatenate([[0], np.flatnonzero(np.diff(number)) + 1, [len(order)]])
        keep = self.storage.rows * self.storage.slot_bytes <= SEAM_BYTES
        for i, (start, stop) in enumerate(itertools.pairwise(edges)):
            cells, first, last = self._uses(order[start:stop], int(start))
            if keep and i + 2 < len(edges):
                later, _, _ = self._uses(order[stop : edges[i + 2]], int(stop))
                done = ~np.isin(cells, later, assume_unique=True)
            else:
                done = np.ones(len(cells), bool)
            by_first = np.argsort(first, kind="stable")
            by_last = np.argsort(last[done], kind="stable")
            yield Strip(
                int(start), int(stop), cells[by_first], first[by_first], cells[done][by_last], last[done][by_last]
            )

    def _uses(self, index: NDArray[np.int64], start: int) -> tuple[NDArray[np.int64], ...]:
        """Storage tiles (flat, ascending) that tiles touch, and the first and last position of a tile that does."""
        s = self.storage
        c0, c1 = _span(self.corners[index, 0], self.span_x, s.tile_w, s.columns)
        r0, r1 = _span(self.corners[index, 1], self.span_y, s.tile_h, s.rows)
        position = np.arange(start, start + len(index))
        cells, positions = [], []
        for dr in range(int((r1 - r0).max(initial=0)) + 1):
            for dc in range(int((c1 - c0).max(initial=0)) + 1):
                touched = (r0 + dr <= r1) & (c0 + dc <= c1)
                cells.append(((r0 + dr) * s.columns + c0 + dc)[touched])
                positions.append(position[touched])
        cell, place = np.concatenate(cells), np.concatenate(positions)
        by_place = np.lexsort((place, cell))
        cell, place = cell[by_place], place[by_place]
        begins = np.flatnonzero(np.diff(cell, prepend=-1))
        ends = np.append(begins[1:], len(cell)) - 1
        return cell[begins], place[begins], place[ends]


def _span(
    corner: NDArray[np.float64], length: float, storage: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last storage tile along one axis that [corner, corner + length) touches."""
    first = np.floor(corner + 1e-6)
    last = np.ceil(np.where(corner - first > 1e-6, corner, first) + length - 1e-6) - 1
    # a tile may begin before the grid, as at the border of an area
    return np.maximum(first // storage, 0).astype(np.int64), np.minimum(last // storage, count - 1).astype(np.int64)
