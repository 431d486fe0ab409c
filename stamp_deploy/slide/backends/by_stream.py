"""Readers for slides whose colour tag contradicts their JPEG streams: OpenSlide and libvips believe the tag.

`StreamReader` decodes the storage tiles of a TIFF itself, each as its stream says. `Recoloured` converts what another
reader took for RGB; the other way round, what was converted for nothing cannot be had back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ... import _tiler
from ...errors import SlideError
from .base import Backend

if TYPE_CHECKING:
    from ..storage.index import StorageGrid

CACHED_TILES = 256


class _Wrapped:
    """A backend that reads in another one's place and leaves the rest to it."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.name, self.vendor = inner.name, inner.vendor
        self.levels, self.properties = inner.levels, inner.properties
        self.transparent: NDArray[np.bool_] | None = None

    def forget(self) -> None:
        self._inner.forget()

    def close(self) -> None:
        self._inner.close()


class Recoloured(_Wrapped):
    """Converts YCbCr that was taken for RGB, at the given levels.

    Parameters
    ----------
    inner : Backend
    wrong : collection of int
        Numbers of those levels in the file.
    """

    def __init__(self, inner: Backend, wrong: Collection[int]) -> None:
        super().__init__(inner)
        self._wrong = frozenset(wrong)

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """RGB of a region (see Backend.read)."""
        pixels = self._inner.read(level, x, y, w, h)
        self.transparent = self._inner.transparent
        if level not in self._wrong:
            return pixels
        spec = self.levels[level]
        rows = np.arange(h) + round(y / spec.downsample_y)
        columns = np.arange(w) + round(x / spec.downsample_x)
        outside = ((rows < 0) | (rows >= spec.height))[:, None] | (columns < 0) | (columns >= spec.width)
        if self.transparent is not None:
            outside |= self.transparent
        out = ycbcr_to_rgb(pixels)
        out[outside] = 255
        return out


def ycbcr_to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """libjpeg's integer conversion, uint8 [..., 3]."""
    y, b, r = (pixels[..., c].astype(np.int32) - (128 if c else 0) for c in range(3))
    out = np.empty(pixels.shape, np.uint8)
    out[..., 0] = np.clip(y + ((91881 * r + 32768) >> 16), 0, 255)
    out[..., 1] = np.clip(y + ((-22554 * b - 46802 * r + 32768) >> 16), 0, 255)
    out[..., 2] = np.clip(y + ((116130 * b + 32768) >> 16), 0, 255)
    return out


class StreamReader(_Wrapped):
    """Reads regions of a tiled JPEG TIFF by the compiled decoder, which believes the streams.

    Parameters
    ----------
    path : Path
    inner : Backend
        Gives levels and properties.
    pages : sequence of StorageGrid
        One for each level.
    """

    def __init__(self, path: Path, inner: Backend, pages: Sequence[StorageGrid]) -> None:
        super().__init__(inner)
        self._path, self._pages = path, pages
        self._workers: dict[int, _tiler.Worker] = {}
        self._cache: OrderedDict[tuple[int, int, int], NDArray[np.uint8]] = OrderedDict()

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """RGB of a region (see Backend.read); what the file leaves out is white."""
        page, spec = self._pages[level], self.levels[level]
        left, top = round(x / spec.downsample_x), round(y / spec.downsample_y)
        right, bottom = min(left + w, page.width), min(top + h, page.height)
        out = np.full((h, w, 3), 255, np.uint8)
        for row in range(max(top, 0) // page.tile_height, -(-bottom // page.tile_height)):
            for column in range(max(left, 0) // page.tile_width, -(-right // page.tile_width)):
                x0, y0 = column * page.tile_width, row * page.tile_height
                x1, y1 = min(x0 + page.tile_width, right), min(y0 + page.tile_height, bottom)
                inner_x, inner_y = max(x0, left), max(y0, top)
                tile = self._tile(level, row, column)
                if tile is not None:
                    out[inner_y - top : y1 - top, inner_x - left : x1 - left] = tile[
                        inner_y - y0 : y1 - y0, inner_x - x0 : x1 - x0
                    ]
        return out

    def forget(self) -> None:
        self._cache.clear()
        super().forget()

    def _tile(self, level: int, row: int, column: int) -> NDArray[np.uint8] | None:
        """A storage tile, decoded; None where the file leaves it out."""
        key = level, row, column
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        page = self._pages[level]
        size = int(page.sizes[row, column])
        if size == 0:
            return None
        if level not in self._workers:
            self._workers[level] = _tiler.Worker(page.tables, page.photometric, page.tile_width, page.tile_height, 1)
        try:
            with self._path.open("rb") as handle:
                handle.seek(int(page.offsets[row, column]))
                data = handle.read(size)
        except OSError as error:
            raise SlideError(f"cannot be read: {error.strerror}", path=self._path, remedy="check the disk") from error
        status, pixels = self._workers[level].decode(data)
        if status != _tiler.OK:
            raise SlideError(
                f"cannot be decoded at storage tile ({column}, {row}) of level {level}: {self._workers[level].message}",
                path=self._path,
                remedy="copy or scan the slide again",
            )
        self._cache[key] = pixels
        while len(self._cache) > CACHED_TILES:
            self._cache.popitem(last=False)
        return pixels
