"""A reader of regions out of an index of storage tiles: each stream is decoded as it says.

It stands in for OpenSlide where OpenSlide would show wrong colours (a TIFF whose tag contradicts its streams), cannot
read the slide, or takes long to open it (DICOM).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ... import _tiler
from ...codecs import Coding, Decoder, StreamError
from ...codecs.decoder import read_stream
from ...errors import COPY_AGAIN, SlideError
from .base import Level

if TYPE_CHECKING:
    from ..storage.index import StorageGrid, StorageIndex

CACHE_BYTES = 32 << 20
"""Of decoded storage tiles."""


class StorageReader:
    """Reads regions of a slide by its index of storage tiles (see Backend); all its levels must have grids.

    Parameters
    ----------
    index : StorageIndex
        One entry for each of `levels`.
    levels : tuple of Level
    vendor : str
    properties : dict of str
        OpenSlide-style.
    name : str
        Of the reader, where the tiler does not read the slide.
    notes : tuple of str
        What a reader of the result should know of the file.
    icc : bytes, optional
        The ICC profile, where the format keeps it elsewhere than a TIFF does; empty where it holds none.
    """

    def __init__(
        self,
        index: StorageIndex,
        levels: tuple[Level, ...],
        vendor: str,
        properties: dict[str, str],
        *,
        name: str = "tiler",
        notes: tuple[str, ...] = (),
        icc: bytes | None = None,
    ) -> None:
        self.name, self.vendor, self.levels, self.properties, self.notes = name, vendor, levels, properties, notes
        self.index, self.icc = index, icc
        self.transparent: NDArray[np.bool_] | None = None
        self._decoder = Decoder()
        self._workers: dict[tuple[int, int], _tiler.Worker] = {}
        self._cache: OrderedDict[tuple[int, int, int, int], NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0
        self._fds: dict[int, int] = {}

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """RGB of a region (see Backend.read); what the file leaves out is white."""
        spec, grids = self.levels[level], self.index.levels[level]
        assert not isinstance(grids, str)
        left, top = round(x / spec.downsample_x), round(y / spec.downsample_y)
        out = np.full((h, w, 3), 255, np.uint8)
        there = np.zeros((h, w), bool)
        for number in range(len(grids)):
            self._paint(level, number, left, top, out, there)
        self.transparent = None if there.all() else ~there
        return out

    def forget(self) -> None:
        self._cache.clear()
        self._cached_bytes = 0

    def close(self) -> None:
        self.forget()
        self._decoder.close()
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}

    def _paint(
        self, level: int, number: int, left: int, top: int, out: NDArray[np.uint8], there: NDArray[np.bool_]
    ) -> None:
        """The part of a region, whose corner is at (left, top) of the level, that lies in one grid."""
        grid = self._grid(level, number)
        left, top = left - grid.origin_x, top - grid.origin_y
        right, bottom = min(left + out.shape[1], grid.width), min(top + out.shape[0], grid.height)
        for row in range(max(top, 0) // grid.tile_height, -(-bottom // grid.tile_height)):
            for column in range(max(left, 0) // grid.tile_width, -(-right // grid.tile_width)):
                x0, y0 = column * grid.tile_width, row * grid.tile_height
                x1, y1 = min(x0 + grid.tile_width, right), min(y0 + grid.tile_height, bottom)
                inner_x, inner_y = max(x0, left), max(y0, top)
                if grid.sizes[row, column] == 0 and grid.absent_is_glass:
                    continue
                tile = self.tile(level, number, row, column)
                place = slice(inner_y - top, y1 - top), slice(inner_x - left, x1 - left)
                out[place] = tile[inner_y - y0 : y1 - y0, inner_x - x0 : x1 - x0]
                there[place] = True

    def _grid(self, level: int, number: int) -> StorageGrid:
        grids = self.index.levels[level]
        assert not isinstance(grids, str)
        return grids[number]

    def tile(self, level: int, number: int, row: int, column: int) -> NDArray[np.uint8]:
        """A storage tile of grid `number` of a level, decoded: uint8 [h, w, 3].

        Raises
        ------
        SlideError
            It cannot be read or decoded.
        """
        key = level, number, row, column
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        grid = self._grid(level, number)
        file = int(grid.files[row, column])
        try:
            if file not in self._fds:
                self._fds[file] = os.open(self.index.files[file], os.O_RDONLY | os.O_CLOEXEC)
            place = self._fds[file], int(grid.offsets[row, column]), int(grid.sizes[row, column])
            if grid.coding is Coding.JPEG:
                pixels = self._decode_jpeg(level, number, *place)
            else:
                pixels = self._decoder.decode(read_stream(*place, in_items=grid.in_items), grid.stream())
        except (OSError, ValueError, StreamError) as error:
            if file in self._fds:
                os.close(self._fds.pop(file))  # what is read again is read through a fresh handle
            why = (error.strerror or "input/output error") if isinstance(error, OSError) else str(error)
            raise self._unreadable(row, column, level, file, why) from error
        self._cache[key] = pixels
        self._cached_bytes += pixels.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def _decode_jpeg(self, level: int, number: int, fd: int, offset: int, size: int) -> NDArray[np.uint8]:
        """By the compiled decoder.

        Raises
        ------
        OSError
            The disk or network failed.
        ValueError
            The stream, or the tables that all share, are damaged.
        """
        grid = self._grid(level, number)
        worker = self._workers.get((level, number))
        if worker is None:
            worker = _tiler.Worker(grid.tables, grid.photometric, grid.tile_width, grid.tile_height, 1)
            self._workers[level, number] = worker
        status, pixels = worker.decode_at(fd, offset, size, int(grid.framing))
        if status != _tiler.OK:
            code, worker.read_errno = worker.read_errno, 0
            if code:
                raise OSError(code, os.strerror(code))
            raise ValueError(worker.message)
        return pixels

    def _unreadable(self, row: int, column: int, level: int, file: int, why: str) -> SlideError:
        return SlideError(
            f"cannot be decoded at storage tile ({column}, {row}) of level {level}: {why}",
            path=self.index.files[file],
            remedy=COPY_AGAIN,
        )
