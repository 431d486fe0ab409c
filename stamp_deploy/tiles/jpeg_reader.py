"""The compiled route: the JPEG storage tiles of one grid, each decoded once, at the scale that the model needs.

The threads share jobs. A job assembles the tiles of one batch and decodes, in file order, the storage tiles of
the next, so that nothing in it waits for anything else in it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import _tiler
from ..errors import COPY_AGAIN, ReadError, SlideError
from ..grid import TileSet
from ..slide import Slide
from ..slide.read_faults import WAITS_S
from ..slide.storage import StorageGrid
from .read_plan import ReadPlan
from .reader import StageTimes, Stop, TileStatus
from .region_reader import RegionReader
from .schedule import Serving, Storage, Strip
from .slot_pool import PoolFull, SlotPool
from .threads import Team

LIVE_BYTES = 4 << 20
"""Decoded storage tiles of one job: few enough to be assembled out of a cache."""
ALONE, SHARE = 4, 8
"""Tiles of a job at least, for one thread and for each of several: at its end threads wait for each other."""


class JpegReader:
    """Fills tiles from one grid of JPEG storage tiles (see Reader and areas_reader.py); beyond the grid is white.

    Parameters
    ----------
    slide : Slide
        One that has an index of storage tiles.
    tileset : TileSet
    grid : StorageGrid
        Of the level that `plan` chose.
    plan : ReadPlan
    threads : int
    exact : bool
        Convert to RGB before averaging.
    stop : Stop

    Raises
    ------
    SlideError
        The shared JPEG tables are damaged, or the storage tiles are too large.
    """

    order: NDArray[np.int64]

    def __init__(
        self,
        slide: Slide,
        tileset: TileSet,
        grid: StorageGrid,
        plan: ReadPlan,
        *,
        threads: int,
        exact: bool,
        stop: Stop,
    ) -> None:
        self.plan, self._path, self._stop = plan, slide.path, stop
        self.failure: SlideError | None = None
        scale, level, tile = self.plan.dct_scale, slide.levels[self.plan.level], tileset.grid.tile_px
        try:
            self._workers = [
                _tiler.Worker(
                    grid.tables, grid.photometric, grid.tile_width, grid.tile_height, scale,
                    tile, self.plan.residual_x, self.plan.residual_y, exact,
                )
                for _ in range(threads)
            ]  # fmt: skip
        except ValueError as error:
            raise SlideError(str(error), path=slide.path, remedy=COPY_AGAIN) from error
        rows, columns = grid.offsets.shape
        storage = Storage(
            rows, columns, grid.tile_width // scale, grid.tile_height // scale, self._workers[0].slot_bytes
        )
        origin = grid.origin_x / scale, grid.origin_y / scale
        self._corners = tileset.coords / (level.downsample_x * scale, level.downsample_y * scale) - origin
        image = -(-grid.width // scale), -(-grid.height // scale)
        self._columns = columns
        self._offsets, self._sizes = grid.offsets.reshape(-1), grid.sizes.reshape(-1)
        self._files, self._framing = grid.files.reshape(-1), int(grid.framing)
        # what a format may leave out is background; what Aperio lacks OpenSlide takes from the next finer level
        self._absent = _tiler.BACKGROUND if grid.absent_is_glass else _tiler.MISSING
        holes = not grid.absent_is_glass and self.plan.level > 0 and grid.absent.any()
        self._regions = RegionReader(slide, tileset, stop) if holes else None
        self._pool = SlotPool(rows, columns, storage.slot_bytes, *image)
        span_x, span_y = self.plan.residual_x * tile, self.plan.residual_y * tile
        self._piece = self._tiles_of_a_job(span_x, span_y, storage, threads)
        serving = Serving(self._corners, tileset.columns, tileset.rows, span_x, span_y, storage)
        self.order = serving.order()
        self._strips = serving.strips(self.order)
        self._begun: deque[_Begun] = deque()
        self._owner = np.full(self._sizes.shape, -1, np.int32)
        self._decoded_to = self._served = 0
        self._team = Team(self._workers)
        assert slide.storage is not None
        self._fds = np.full(len(slide.storage.files), -1, np.int32)
        try:
            for number in np.unique(self._files):
                self._fds[number] = slide.descriptor(slide.storage.files[number])
        except BaseException as error:
            self.close()
            if not isinstance(error, OSError):
                raise
            raise SlideError(
                f"cannot be opened: {error.strerror}", path=slide.path, remedy="check the file's permissions"
            ) from error

    @property
    def times(self) -> StageTimes:
        """Of all threads so far."""
        own = StageTimes(
            read_s=sum(w.read_s for w in self._workers),
            decode_s=sum(w.decode_s for w in self._workers),
            resample_s=sum(w.assemble_s for w in self._workers),
            storage_tiles=sum(w.tiles for w in self._workers),
            bytes_read=sum(w.bytes_read for w in self._workers),
        )
        return own if self._regions is None else own + self._regions.times

    @property
    def pool_tiles(self) -> int:
        """How many decoded storage tiles are held at most so far."""
        return self._pool.held_most

    def fill(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decode and assemble the tiles at `index`, which continue `order`; see Reader."""
        status = np.full(len(index), TileStatus.TIMEOUT, np.uint8)
        for start in range(0, len(index), self._piece):
            piece = slice(start, start + self._piece)
            self._fill(index[piece], out[piece], status[piece])
        again = np.flatnonzero(status == TileStatus.MISSING)
        if self._regions is not None and again.size:
            found = np.empty((again.size, *out.shape[1:]), np.uint8)
            status[again] = self._regions.fill(index[again], found)
            out[again] = found
        # beyond missing, corrupt and out of time, what the core reports is a fault of ours
        if (status > TileStatus.TIMEOUT).any():
            raise RuntimeError(f"the tiler answered with status {status.max()}")
        return status

    def _fill(self, index: NDArray[np.int64], out: NDArray[np.uint8], status: NDArray[np.uint8]) -> None:
        """Assemble some tiles and decode what the next ones need."""
        end = self._served + len(index)
        while self._decoded_to < end and not self._stop.reached:
            self._run(self._next_cells(end), index[:0], out[:0], status[:0])
        if not self._stop.reached:
            # one thread waits for nobody: it decodes just before it assembles, and holds half as much
            ahead = len(self._workers) > 1 and self._decoded_to - end < len(index)
            cells = self._next_cells(end + self._piece) if ahead else index[:0]
            self._run(cells, index, out, status)
        self._served = end

    @staticmethod
    def _tiles_of_a_job(span_x: float, span_y: float, storage: Storage, threads: int) -> int:
        touched = (span_x / storage.tile_w + 0.5) * (span_y / storage.tile_h + 0.5)
        least = ALONE if threads == 1 else SHARE * threads
        return max(least, int(LIVE_BYTES / (touched * storage.slot_bytes)))

    def close(self) -> None:
        """End the threads and close the files."""
        self._team.close()
        for number in np.flatnonzero(self._fds >= 0):
            os.close(int(self._fds[number]))
            self._fds[number] = -1

    def _next_cells(self, position: int) -> NDArray[np.int64]:
        """Storage tiles, not decoded yet, that the tiles before `position` need; at most to the end of the strip."""
        if not self._begun or self._decoded_to >= self._begun[-1].strip.stop:
            strip = next(self._strips, None)
            if strip is None:
                return np.empty(0, np.int64)
            self._begun.append(_Begun(strip))
            self._owner[strip.by_first_use] = strip.start
        current = self._begun[-1]
        position = min(position, current.strip.stop)
        until = int(np.searchsorted(current.strip.first_use, position))
        cells: NDArray[np.int64] = current.strip.by_first_use[current.taken : until]
        current.taken, self._decoded_to = until, position
        cells = cells[self._pool.state[cells] == _tiler.UNREAD]
        in_file_order: NDArray[np.int64] = cells[np.lexsort((self._offsets[cells], self._files[cells]))]
        return in_file_order

    def _run(
        self, cells: NDArray[np.int64], index: NDArray[np.int64], out: NDArray[np.uint8], status: NDArray[np.uint8]
    ) -> None:
        self._forget()
        try:
            slots = self._pool.take(len(cells))
        except PoolFull as error:
            raise SlideError(
                f"needs {error.slots} storage tiles of {error.slot_bytes >> 20} MiB in memory at once",
                path=self._path,
                remedy="convert it to a tiled pyramidal TIFF with tiles of 256 px",
            ) from error
        self._decode(cells, slots, _tiler.Tiles(self._corners[index], out, status))
        waits_s = iter(WAITS_S)
        while (fault := self._fault()) is not None:
            wait_s = next(waits_s, None)
            if wait_s is None:
                raise ReadError(
                    f"cannot be read: {fault}, {len(WAITS_S) + 1} times",
                    path=self._path,
                    remedy="check the disk or network that holds the slide, then run it again",
                )
            if self._pause(wait_s):
                break
            left = self._pool.state[cells] == _tiler.UNREAD
            self._decode(cells[left], slots[left], _tiler.Tiles(self._corners[:0], out[:0], status[:0]))
        self._pool.give_back_unused(cells, slots)

    def _decode(self, cells: NDArray[np.int64], slots: NDArray[np.int32], tiles: _tiler.Tiles) -> None:
        reads = _tiler.Reads(
            self._fds[self._files[cells]], self._offsets[cells], self._sizes[cells], cells.astype(np.int32), slots,
            self._absent, self._framing,
        )  # fmt: skip
        self._team.run(_tiler.Job(self._pool.decoded, reads, tiles, self._stop))
        if any(worker.out_of_memory for worker in self._workers):
            raise ReadError(
                "cannot be read: out of memory", path=self._path, remedy="free some memory, or run fewer slides at once"
            )

    def _fault(self) -> str | None:
        """What the disk or network said where a read failed, in words; asked once."""
        codes = [worker.read_errno for worker in self._workers if worker.read_errno]
        for worker in self._workers:
            worker.read_errno = 0
        return os.strerror(codes[0]).lower() if codes else None

    def _pause(self, seconds: float) -> bool:
        """Wait; True where the work is to end first."""
        until = time.monotonic() + seconds
        while not self._stop.reached and time.monotonic() < until:
            time.sleep(min(0.05, seconds))
        return self._stop.reached

    def _forget(self) -> None:
        """Give back the slots of storage tiles that no tile to come touches."""
        for begun in self._begun:
            strip = begun.strip
            until = int(np.searchsorted(strip.last_use, self._served))
            gone = strip.by_last_use[begun.forgotten : until]
            gone = gone[self._owner[gone] == strip.start]
            begun.forgotten = until
            self._pool.forget(gone)
        while len(self._begun) > 1 and self._begun[0].strip.stop <= self._served:
            self._begun.popleft()


@dataclass
class _Begun:
    """A strip and how far it is decoded and forgotten."""

    strip: Strip
    taken: int = 0
    forgotten: int = 0
