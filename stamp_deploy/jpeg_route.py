"""The compiled route: JPEG storage tiles of a TIFF, each decoded once, at the scale that the model needs.

Tiles are served strip by strip: strips of some columns of the grid, each from top to bottom, so that a
decoded storage tile is used again by the next row and then forgotten, and memory does not grow with the
slide. A batch is decoded in parallel (storage tiles in file order), then assembled in parallel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import _tiler
from .errors import SlideError
from .grid import TileSet
from .plan import ReadPlan, choose_plan
from .slide import Slide
from .tiff import TiffLevel, read_levels
from .tiles import StageTimes, TileStatus

STRIP_STORAGE_TILES = 64
DECODE_CHUNK = 8
ASSEMBLE_CHUNK = 4
_UNREAD = 255


class JpegReader:
    """Fills tiles from a tiled JPEG TIFF (see tiles.Reader).

    Raises
    ------
    SlideError
        The file's directories or its shared JPEG tables are damaged.
    """

    plan: ReadPlan
    order: NDArray[np.int64]

    def __init__(self, slide: Slide, tileset: TileSet, *, threads: int, exact: bool) -> None:
        directories = read_levels(slide.path, slide.levels)
        scales = [d.scales if isinstance(d, TiffLevel) else () for d in directories]
        self.plan = choose_plan(slide.levels, tileset.grid, route="jpeg-tiff", scales=scales, exact=exact)
        chosen = directories[self.plan.level]
        if isinstance(chosen, str):
            raise SlideError(chosen, path=slide.path, remedy="read it by another route")
        self._level, self._tileset, self._path = chosen, tileset, slide.path
        scale, level = self.plan.dct_scale, slide.levels[self.plan.level]
        self._tile_w, self._tile_h = chosen.tile_width // scale, chosen.tile_height // scale
        self._image_w, self._image_h = -(-chosen.width // scale), -(-chosen.height // scale)
        self._corners = tileset.coords / (level.downsample_x * scale, level.downsample_y * scale)
        self.order = self._strips()
        self._first_row, self._last_use = _SpanOf(self), np.full(chosen.offsets.shape, -1, np.int64)
        self._slot = np.full(chosen.offsets.shape, -1, np.int32)
        self._state = np.full(chosen.offsets.shape, _UNREAD, np.uint8)
        self._pool = np.empty((0, self._tile_h, self._tile_w, 3), np.uint8)
        self._free: list[int] = []
        self._live = np.empty(0, np.int64)
        self._served = 0
        for position in _chunks(len(self.order), 65536):
            for cells, use in self._first_row.cells(self.order[position], position.start):
                np.maximum.at(self._last_use.reshape(-1), cells, use)
        try:
            self._fd = os.open(slide.path, os.O_RDONLY)
            self._decoders = [self._decoder() for _ in range(threads)]
        except ValueError as error:
            os.close(self._fd)
            raise SlideError(str(error), path=slide.path, remedy="copy or scan the slide again") from error
        tile = tileset.grid.tile_px
        self._assemblers = [
            _tiler.Assembler(tile, self.plan.residual_x, self.plan.residual_y) for _ in range(threads)
        ]
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="tiler")

    def fill(
        self, index: NDArray[np.int64], out: NDArray[np.uint8], times: StageTimes, late: Callable[[], bool]
    ) -> NDArray[np.uint8]:
        """Decode and assemble the tiles at `index`, which continue `order`; see tiles.Reader."""
        status = np.full(len(index), TileStatus.TIMEOUT, np.uint8)
        if late():
            return status
        needed = np.unique(np.concatenate([cells for cells, _ in self._first_row.cells(index, 0)]))
        needed = needed[self._state.reshape(-1)[needed] == _UNREAD]
        if not self._decode(needed, late):
            return status
        corners = np.ascontiguousarray(self._corners[index])

        def assemble(worker: int, part: slice) -> None:
            self._assemblers[worker].assemble(
                self._pool, self._slot, self._state, self._image_w, self._image_h,
                corners[part], out[part], status[part],
            )  # fmt: skip

        self._share(assemble, list(_chunks(len(index), ASSEMBLE_CHUNK)))
        # beyond missing and corrupt, what the core reports is a fault of ours
        if (status > TileStatus.CORRUPT).any():
            raise RuntimeError(f"the tiler answered with status {status.max()}")
        self._served += len(index)
        self._forget()
        self._record(times)
        return status

    @property
    def pool_tiles(self) -> int:
        """How many decoded storage tiles are held at most so far."""
        return len(self._pool)

    def close(self) -> None:
        """Stop the threads and close the file."""
        self._workers.shutdown()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _decoder(self) -> _tiler.Decoder:
        level = self._level
        return _tiler.Decoder(
            level.tables, level.photometric, level.tile_width, level.tile_height, self.plan.dct_scale
        )

    def _strips(self) -> NDArray[np.int64]:
        """TileSet positions, strip by strip, each in row-major order."""
        grid = self._tileset.grid
        across = max(1, int(STRIP_STORAGE_TILES * self._tile_w / (self.plan.residual_x * grid.tile_px)))
        strip = self._tileset.columns // across
        return np.lexsort((self._tileset.columns, self._tileset.rows, strip)).astype(np.int64)

    def _decode(self, needed: NDArray[np.int64], late: Callable[[], bool]) -> bool:
        """Decode storage tiles into the pool; False where time ran out before all were."""
        offsets, sizes = self._level.offsets.reshape(-1)[needed], self._level.sizes.reshape(-1)[needed]
        by_place = np.argsort(offsets, kind="stable")
        needed, offsets, sizes = needed[by_place], offsets[by_place], sizes[by_place]
        slots = self._take(len(needed))
        status = np.full(len(needed), _UNREAD, np.uint8)

        def decode(worker: int, part: slice) -> None:
            if not late():
                self._decoders[worker].decode_many(
                    self._fd, offsets[part], sizes[part], slots[part], self._pool, status[part]
                )

        self._share(decode, list(_chunks(len(needed), DECODE_CHUNK)))
        if (status == _tiler.NO_MEMORY).any():
            raise MemoryError("no memory to decode a storage tile")
        status[(status > _tiler.CORRUPT) & (status != _UNREAD)] = _tiler.CORRUPT
        self._state.reshape(-1)[needed] = status
        self._slot.reshape(-1)[needed] = slots
        self._live = np.concatenate([self._live, needed])
        return not (status == _UNREAD).any()

    def _take(self, count: int) -> NDArray[np.int32]:
        """Free places of the pool, which grows to what the widest strip needs and then stays."""
        short = count - len(self._free)
        if short > 0:
            old = len(self._pool)
            grown = np.empty((old + short + count // 4, *self._pool.shape[1:]), np.uint8)
            grown[:old] = self._pool
            self._free.extend(range(old, len(grown)))
            self._pool = grown
        slots = np.array([self._free.pop() for _ in range(count)], np.int32)
        return slots

    def _forget(self) -> None:
        """Give back the places of storage tiles that no later tile touches."""
        done = self._last_use.reshape(-1)[self._live] < self._served
        gone = self._live[done]
        self._free.extend(self._slot.reshape(-1)[gone].tolist())
        self._slot.reshape(-1)[gone] = -1
        self._live = self._live[~done]

    def _share(self, work: Callable[[int, slice], None], parts: list[slice]) -> None:
        """Let the threads take parts until none is left; the first error is raised."""
        queue = iter(parts)
        if len(self._decoders) == 1 or len(parts) <= 1:
            for part in queue:
                work(0, part)
            return

        def run(worker: int) -> None:
            while (part := next(queue, None)) is not None:
                work(worker, part)

        futures: list[Future[None]] = [self._workers.submit(run, i) for i in range(1, len(self._decoders))]
        run(0)
        for future in futures:
            future.result()

    def _record(self, times: StageTimes) -> None:
        times.read_s = sum(d.read_s for d in self._decoders)
        times.decode_s = sum(d.decode_s for d in self._decoders)
        times.resample_s = sum(a.resample_s for a in self._assemblers)
        times.storage_tiles = sum(d.tiles for d in self._decoders)
        times.bytes_read = sum(d.bytes_read for d in self._decoders)


@dataclass(frozen=True)
class _SpanOf:
    """Which storage tiles each tile of a reader touches."""

    reader: JpegReader

    def cells(self, index: NDArray[np.int64], start: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of arrays: flat storage tile numbers, and the serving position of the tile that touches each."""
        r = self.reader
        rows, columns = r._level.offsets.shape[:2]
        tile = r._tileset.grid.tile_px
        x, y = r._corners[index, 0], r._corners[index, 1]
        c0, c1 = _span(x, r.plan.residual_x * tile, r._tile_w, columns)
        r0, r1 = _span(y, r.plan.residual_y * tile, r._tile_h, rows)
        position = np.arange(start, start + len(index))
        for dr in range(int((r1 - r0).max(initial=0)) + 1):
            for dc in range(int((c1 - c0).max(initial=0)) + 1):
                touched = (r0 + dr <= r1) & (c0 + dc <= c1)
                yield ((r0 + dr) * columns + c0 + dc)[touched], position[touched]


def _span(
    corner: NDArray[np.float64], length: float, storage: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last storage tile along one axis that [corner, corner + length) touches."""
    first = np.floor(corner + 1e-6)
    last = np.ceil(corner + length - 1e-6) - 1
    return (first // storage).astype(np.int64), np.minimum(last // storage, count - 1).astype(np.int64)


def _chunks(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
