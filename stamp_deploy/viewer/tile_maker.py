"""Tiles for the browser: storage tiles as they lie in the file, or made by the compiled decoder, or from the picture.

A stored tile costs a read of the disk. A made one is decoded at the largest reduced scale that is fine enough (see
docs/tiler.md), brought to its size and coded as JPEG; those are kept in a cache with a bound. What cannot be decoded is
hatched grey: a hole in the file must not look like glass.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from queue import LifoQueue

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import _tiler
from ..codecs import Coding, Decoder, StreamError
from ..codecs.decoder import read_stream
from ..errors import StampError
from ..slide import Slide
from ..slide.storage.index import StorageGrid
from ..system.processor import usable_cores
from .stored_stream import MAX_STREAM_BYTES, whole_stream
from .tile_cache import TileCache
from .zoom_levels import PICTURE, ZoomLevel, picture_levels, zoom_levels

QUALITY = 88
"""Of tiles that are made; their colour is not subsampled: small nuclei would lose theirs at low zoom."""
STRIP_BYTES = 8 << 20
"""Of a region that is read from a slide without an index of storage tiles, at once."""
HATCH_PX, HATCH_LINE_PX = 16, 4
HATCH_GREY, HATCH_DARK = 190, 120
Box = tuple[int, int, int, int]


class TileMaker:
    """Makes the tiles of one slide, in any thread.

    Parameters
    ----------
    slide : Slide or None
        Open; None where only the result's picture is at hand.
    size : (int, int)
        Width and height of level 0, pixels.
    picture : uint8 [h, w, 3]
        The whole slide, small.
    cache : TileCache
    name : hashable
        Tells this slide's tiles from others in the cache.
    """

    def __init__(
        self,
        slide: Slide | None,
        size: tuple[int, int],
        picture: NDArray[np.uint8],
        cache: TileCache,
        name: Hashable,
    ) -> None:
        self._slide, self._picture, self._cache, self._name = slide, picture, cache, name
        picture_px = picture.shape[1], picture.shape[0]
        if slide is None:
            self.levels = picture_levels(size, picture_px)
        else:
            self.levels = zoom_levels(slide.levels, slide.storage, picture_px)
        self._one_reader = threading.Lock()  # a slide's own reader takes one thread at a time
        self._descriptors: dict[int, int] = {}
        self._opening = threading.Lock()
        self._decoders: LifoQueue[_Decoders] = LifoQueue()
        for _ in range(max(2, usable_cores())):
            self._decoders.put(_Decoders())

    def tile(self, level: int, column: int, row: int) -> bytes:
        """A tile as a JPEG file.

        Raises
        ------
        KeyError
            There is no such tile.
        """
        if not 0 <= level < len(self.levels):
            raise KeyError(level)
        zoom = self.levels[level]
        if not (0 <= column < zoom.columns and 0 <= row < zoom.rows):
            raise KeyError((column, row))
        if zoom.stored:
            stored = self._stored(zoom, column, row)
            if stored is not None:
                return stored
        key = self._name, level, column, row
        made = self._cache.get(key)
        if made is None:
            made = _encode(self._pixels(zoom, zoom.box(column, row)))
            self._cache.put(key, made)
        return made

    def close(self) -> None:
        """Close the files; a tile that is being made fails."""
        with self._opening:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors = {}
        while not self._decoders.empty():
            self._decoders.get().library.close()

    def _stored(self, zoom: ZoomLevel, column: int, row: int) -> bytes | None:
        """The storage tile as it lies in the file; None where it has to be decoded: at the edge, left out, damaged."""
        grid = self._grids(zoom.source)[0]
        _, _, right, bottom = zoom.box(column, row)
        if right != (column + 1) * grid.tile_width or bottom != (row + 1) * grid.tile_height:
            return None
        size = int(grid.sizes[row, column])
        if not 0 < size <= MAX_STREAM_BYTES:
            return None
        try:
            descriptor = self._descriptor(int(grid.files[row, column]))
            stream = read_stream(descriptor, int(grid.offsets[row, column]), size, in_items=grid.in_items)
        except (OSError, StampError, StreamError):
            return None
        return whole_stream(stream, grid.tables, grid.photometric, grid.tile_width, grid.tile_height)

    def _pixels(self, zoom: ZoomLevel, box: Box) -> NDArray[np.uint8]:
        """A box of a level, uint8 [h, w, 3]."""
        size = box[2] - box[0], box[3] - box[1]
        if zoom.source == PICTURE:
            high, wide = self._picture.shape[:2]
            kx, ky = wide / zoom.width, high / zoom.height
            return _resized(self._picture, (box[0] * kx, box[1] * ky, box[2] * kx, box[3] * ky), size)
        assert self._slide is not None
        source = self._slide.levels[zoom.source]
        ratio_x, ratio_y = source.width / zoom.width, source.height / zoom.height
        wanted = box[0] * ratio_x, box[1] * ratio_y, box[2] * ratio_x, box[3] * ratio_y
        storage = self._slide.storage
        scales = () if storage is None else storage.scales(zoom.source)
        if scales:
            scale = max((s for s in scales if s <= min(ratio_x, ratio_y) * 1.001), default=1)
            edges = tuple(edge / scale for edge in wanted)
            outer = _whole(edges, -(-source.width // scale), -(-source.height // scale))
            with self._decoding() as decoders:
                pixels = self._mosaic(decoders, zoom.source, scale, outer)
            return _resized(pixels, _within(edges, outer), size)
        outer = _whole(wanted, source.width, source.height)
        factor = max(1, int(min(ratio_x, ratio_y)))
        pixels = self._region(zoom.source, outer, factor)
        inner = tuple(edge / factor for edge in _within(wanted, outer))
        return _resized(pixels, inner, size)

    def _mosaic(self, decoders: _Decoders, level: int, scale: int, box: Box) -> NDArray[np.uint8]:
        """A box of a native level at a decoding scale, out of its storage tiles; white where the file leaves it out."""
        left, top, right, bottom = box
        out = np.full((bottom - top, right - left, 3), 255, np.uint8)
        for number, grid in enumerate(self._grids(level)):
            w, h = grid.tile_width // scale, grid.tile_height // scale
            x0, y0 = grid.origin_x // scale, grid.origin_y // scale
            wide, high = -(-grid.width // scale), -(-grid.height // scale)
            for row in range(max(top - y0, 0) // h, min(-(-(bottom - y0) // h), grid.sizes.shape[0])):
                for column in range(max(left - x0, 0) // w, min(-(-(right - x0) // w), grid.sizes.shape[1])):
                    if grid.sizes[row, column] == 0 and grid.absent_is_glass:
                        continue
                    tx, ty = x0 + column * w, y0 + row * h
                    ax, ay = max(tx, left), max(ty, top)
                    bx, by = min(tx + w, right, x0 + wide), min(ty + h, bottom, y0 + high)
                    if ax >= bx or ay >= by:
                        continue
                    tile = self._decode(decoders, grid, (level, number, scale), row, column)
                    out[ay - top : by - top, ax - left : bx - left] = tile[ay - ty : by - ty, ax - tx : bx - tx]
        return out

    def _decode(
        self, decoders: _Decoders, grid: StorageGrid, kind: tuple[int, int, int], row: int, column: int
    ) -> NDArray[np.uint8]:
        """A storage tile at a scale; hatched where it cannot be read."""
        scale = kind[2]
        offset, size = int(grid.offsets[row, column]), int(grid.sizes[row, column])
        try:
            descriptor = self._descriptor(int(grid.files[row, column]))
            if grid.coding is not Coding.JPEG:
                stream = read_stream(descriptor, offset, size, in_items=grid.in_items)
                return decoders.library.decode(stream, grid.stream(scale))
            status, pixels = decoders.worker(kind, grid).decode_at(descriptor, offset, size, int(grid.framing))
            if status == _tiler.OK:
                return pixels
        except (OSError, ValueError, StampError, StreamError):
            pass
        return hatched(grid.tile_height // scale, grid.tile_width // scale)

    def _region(self, level: int, box: Box, factor: int) -> NDArray[np.uint8]:
        """A box of a native level, reduced by a whole factor, by the slide's own reader; strip by strip."""
        assert self._slide is not None
        source = self._slide.levels[level]
        left, top, right, bottom = box
        strip = max(factor, STRIP_BYTES // (3 * (right - left)) // factor * factor)
        parts = []
        for y in range(top, bottom, strip):
            rows = min(strip, bottom - y)
            x0, y0 = round(left * source.downsample_x), round(y * source.downsample_y)
            try:
                with self._one_reader:
                    pixels = self._slide.read_region(level, x0, y0, right - left, rows)
            except StampError:
                pixels = hatched(rows, right - left)
            parts.append(np.asarray(Image.fromarray(pixels).reduce(factor)) if factor > 1 else pixels)
        return np.concatenate(parts)

    def _grids(self, level: int) -> tuple[StorageGrid, ...]:
        assert self._slide is not None and self._slide.storage is not None
        grids = self._slide.storage.levels[level]
        assert not isinstance(grids, str)
        return grids

    def _descriptor(self, file: int) -> int:
        with self._opening:
            if file not in self._descriptors:
                assert self._slide is not None and self._slide.storage is not None
                self._descriptors[file] = self._slide.descriptor(self._slide.storage.files[file])
            return self._descriptors[file]

    @contextmanager
    def _decoding(self) -> Iterator[_Decoders]:
        """Decoders of this thread's own; as many threads decode as there are cores."""
        decoders = self._decoders.get()
        try:
            yield decoders
        finally:
            self._decoders.put(decoders)


class _Decoders:
    """The decoders that one thread uses: compiled ones by level, grid and scale; `library` for what is not JPEG."""

    def __init__(self) -> None:
        self.library = Decoder()
        self._workers: dict[tuple[int, int, int], _tiler.Worker] = {}

    def worker(self, kind: tuple[int, int, int], grid: StorageGrid) -> _tiler.Worker:
        if kind not in self._workers:
            self._workers[kind] = _tiler.Worker(
                grid.tables, grid.photometric, grid.tile_width, grid.tile_height, kind[2]
            )
        return self._workers[kind]


def hatched(rows: int, columns: int) -> NDArray[np.uint8]:
    """What stands for pixels that cannot be read: uint8 [rows, columns, 3]."""
    lines = (np.arange(rows)[:, None] + np.arange(columns)[None, :]) % HATCH_PX < HATCH_LINE_PX
    return np.repeat(np.where(lines, HATCH_DARK, HATCH_GREY).astype(np.uint8)[..., None], 3, axis=2)


def _whole(edges: tuple[float, ...], width: int, height: int) -> Box:
    """The smallest box of whole pixels around (left, top, right, bottom), inside the picture and never empty."""
    left, top = min(int(edges[0] + 1e-6), width - 1), min(int(edges[1] + 1e-6), height - 1)
    right, bottom = min(_ceil(edges[2]), width), min(_ceil(edges[3]), height)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _ceil(value: float) -> int:
    return -int(-(value - 1e-6) // 1)


def _within(edges: tuple[float, ...], outer: Box) -> tuple[float, ...]:
    """Edges counted from the corner of a box around them, and cut to it."""
    wide, high = outer[2] - outer[0], outer[3] - outer[1]
    left, right = (min(max(edge - outer[0], 0.0), wide) for edge in (edges[0], edges[2]))
    top, bottom = (min(max(edge - outer[1], 0.0), high) for edge in (edges[1], edges[3]))
    return left, top, right, bottom


def _resized(pixels: NDArray[np.uint8], box: tuple[float, ...], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A box of a picture, brought to a size: averages where it shrinks, linear in between where it grows."""
    if size == (box[2] - box[0], box[3] - box[1]) and all(float(edge).is_integer() for edge in box):
        left, top, right, bottom = map(int, box)
        return pixels[top:bottom, left:right]
    shrinks = box[2] - box[0] >= size[0]
    kind = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(pixels).resize(size, kind, box=(box[0], box[1], box[2], box[3])))


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()
