"""The compiled route: JPEG storage tiles of a TIFF, each decoded once, at the scale that the model needs.

The threads share jobs. A job assembles the tiles of one batch and decodes, in file order, the storage tiles of
the next, so that nothing in it waits for anything else in it.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import _tiler
from ..errors import SlideError
from ..grid import TileSet
from ..memory import fresh_pages
from ..slide import Slide
from ..slide.tiff import TiffLevel, read_levels
from .read_plan import ReadPlan, choose_plan
from .schedule import Serving, Storage, Strip
from .source import StageTimes, TileStatus

LIVE_BYTES = 4 << 20
"""Decoded storage tiles of one job: few enough to be assembled out of a cache."""
ROOM_BYTES = 64 << 20
"""The pool's size at first; what no storage tile has been put into takes no memory."""
ALONE, SHARE = 4, 8
"""Tiles of a job at least, for one thread and for each of several: at its end threads wait for each other."""
POOL_BYTES = 1 << 30
"""Decoded storage tiles that are held at most; a slide that needs more is refused."""


class JpegReader:
    """Fills tiles from a tiled JPEG TIFF (see tiles.Reader).

    Raises
    ------
    SlideError
        The file's directories or its shared JPEG tables are damaged, or its storage tiles are too large.
    """

    plan: ReadPlan
    order: NDArray[np.int64]

    def __init__(self, slide: Slide, tileset: TileSet, *, threads: int, exact: bool, deadline: float) -> None:
        directories = read_levels(slide.path, slide.levels)
        scales = [d.scales if isinstance(d, TiffLevel) else () for d in directories]
        self.plan = choose_plan(slide.levels, tileset.grid, route="jpeg-tiff", scales=scales, exact=exact)
        chosen = directories[self.plan.level]
        if isinstance(chosen, str):
            raise SlideError(chosen, path=slide.path, remedy="read it by another route")
        self._path, self._stop = slide.path, _tiler.Stop(deadline)
        scale, level, tile = self.plan.dct_scale, slide.levels[self.plan.level], tileset.grid.tile_px
        try:
            self._workers = [
                _tiler.Worker(
                    chosen.tables, chosen.photometric, chosen.tile_width, chosen.tile_height, scale,
                    tile, self.plan.residual_x, self.plan.residual_y, exact,
                )
                for _ in range(threads)
            ]  # fmt: skip
        except ValueError as error:
            raise SlideError(str(error), path=slide.path, remedy="copy or scan the slide again") from error
        rows, columns = shape = chosen.offsets.shape
        storage = Storage(
            rows, columns, chosen.tile_width // scale, chosen.tile_height // scale, self._workers[0].slot_bytes
        )
        self._corners = tileset.coords / (level.downsample_x * scale, level.downsample_y * scale)
        self._image = -(-chosen.width // scale), -(-chosen.height // scale)
        self._offsets, self._sizes = chosen.offsets.reshape(-1), chosen.sizes.reshape(-1)
        self._slot = np.full(shape, -1, np.int32)
        self._state = np.full(shape, _tiler.UNREAD, np.uint8)
        self._layout = np.zeros(shape, np.uint8)
        self._pool = fresh_pages((max(1, ROOM_BYTES // storage.slot_bytes), storage.slot_bytes))
        self._free = list(range(len(self._pool)))[::-1]
        self._held_most = 0
        span_x, span_y = self.plan.residual_x * tile, self.plan.residual_y * tile
        self._piece = self._tiles_of_a_job(span_x, span_y, storage, threads)
        serving = Serving(self._corners, tileset.columns, tileset.rows, span_x, span_y, storage)
        self.order = serving.order()
        self._strips = serving.strips(self.order)
        self._begun: deque[_Begun] = deque()
        self._owner = np.full(self._sizes.shape, -1, np.int32)
        self._decoded_to = self._served = 0
        self._team = _Team(self._workers)
        self._fd = -1
        try:
            self._fd = os.open(slide.path, os.O_RDONLY)
        except OSError as error:
            self._team.close()
            raise SlideError(
                f"cannot be opened: {error.strerror}", path=slide.path, remedy="check the file's permissions"
            ) from error

    def fill(
        self, index: NDArray[np.int64], out: NDArray[np.uint8], times: StageTimes, late: Callable[[], bool]
    ) -> NDArray[np.uint8]:
        """Decode and assemble the tiles at `index`, which continue `order`; see tiles.Reader."""
        status = np.full(len(index), TileStatus.TIMEOUT, np.uint8)
        for start in range(0, len(index), self._piece):
            piece = slice(start, start + self._piece)
            self._fill(index[piece], out[piece], status[piece], late)
        status[status == _tiler.UNREAD] = TileStatus.TIMEOUT
        # beyond missing, corrupt and out of time, what the core reports is a fault of ours
        if (status > TileStatus.TIMEOUT).any():
            raise RuntimeError(f"the tiler answered with status {status.max()}")
        self._record(times)
        return status

    def _fill(
        self, index: NDArray[np.int64], out: NDArray[np.uint8], status: NDArray[np.uint8], late: Callable[[], bool]
    ) -> None:
        """Assemble some tiles and decode what the next ones need."""
        end = self._served + len(index)
        while self._decoded_to < end and not late():
            self._run(self._next_cells(end), index[:0], out[:0], status[:0])
        if not late():
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

    @property
    def pool_tiles(self) -> int:
        """How many decoded storage tiles are held at most so far."""
        return self._held_most

    def stop(self) -> None:
        """End the work that is under way before its next storage tile; may be called from any thread."""
        self._stop.set()

    def close(self) -> None:
        """Stop the threads and close the file."""
        self._stop.set()
        self._team.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

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
        cells = cells[self._state.reshape(-1)[cells] == _tiler.UNREAD]
        in_file_order: NDArray[np.int64] = cells[np.argsort(self._offsets[cells], kind="stable")]
        return in_file_order

    def _run(
        self, cells: NDArray[np.int64], index: NDArray[np.int64], out: NDArray[np.uint8], status: NDArray[np.uint8]
    ) -> None:
        self._forget()
        slots = self._take(len(cells))
        job = _tiler.Job(
            self._fd, self._offsets[cells], self._sizes[cells], cells.astype(np.int32), slots, self._pool,
            self._slot, self._state, self._layout, *self._image, self._corners[index], out, status, self._stop,
        )  # fmt: skip
        self._team.run(job)
        if any(worker.out_of_memory for worker in self._workers):
            raise MemoryError("no memory to decode a storage tile")
        # what is missing, corrupt or was not reached needs no slot
        unused = self._slot.reshape(-1)[cells] != slots
        self._free.extend(slots[unused].tolist())

    def _take(self, count: int) -> NDArray[np.int32]:
        """Free slots of the pool, the one that was freed last first: it may still lie in a cache."""
        short = count - len(self._free)
        if short > 0:
            old = len(self._pool)
            new = 2 * old + short
            if new * self._pool.shape[1] > POOL_BYTES:
                new = old + short
            if new * self._pool.shape[1] > POOL_BYTES:
                raise SlideError(
                    f"needs {new} storage tiles of {self._pool.shape[1] >> 20} MiB in memory at once",
                    path=self._path,
                    remedy="convert it to a tiled pyramidal TIFF with tiles of 256 px",
                )
            grown = fresh_pages((new, self._pool.shape[1]))
            used = np.flatnonzero(~np.isin(np.arange(old), self._free))
            grown[used] = self._pool[used]
            self._free[:0] = range(old, new)
            self._pool = grown
        self._held_most = max(self._held_most, len(self._pool) - len(self._free) + count)
        return np.array([self._free.pop() for _ in range(count)], np.int32)

    def _forget(self) -> None:
        """Give back the slots of storage tiles that no tile to come touches."""
        slot, state = self._slot.reshape(-1), self._state.reshape(-1)
        for begun in self._begun:
            strip = begun.strip
            until = int(np.searchsorted(strip.last_use, self._served))
            gone = strip.by_last_use[begun.forgotten : until]
            gone = gone[self._owner[gone] == strip.start]
            begun.forgotten = until
            self._free.extend(slot[gone][slot[gone] >= 0].tolist())
            slot[gone] = -1
            state[gone] = _tiler.UNREAD
        while len(self._begun) > 1 and self._begun[0].strip.stop <= self._served:
            self._begun.popleft()

    def _record(self, times: StageTimes) -> None:
        times.read_s = sum(w.read_s for w in self._workers)
        times.decode_s = sum(w.decode_s for w in self._workers)
        times.resample_s = sum(w.assemble_s for w in self._workers)
        times.storage_tiles = sum(w.tiles for w in self._workers)
        times.bytes_read = sum(w.bytes_read for w in self._workers)


@dataclass
class _Begun:
    """A strip and how far it is decoded and forgotten."""

    strip: Strip
    taken: int = 0
    forgotten: int = 0


class _Team:
    """Threads that run every job together with the caller."""

    def __init__(self, workers: list[_tiler.Worker]) -> None:
        self._first = workers[0]
        self._jobs: list[queue.SimpleQueue[_tiler.Job | None]] = [queue.SimpleQueue() for _ in workers[1:]]
        self._done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(worker, jobs), name="tiler", daemon=True)
            for worker, jobs in zip(workers[1:], self._jobs, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, job: _tiler.Job) -> None:
        """Run a job to its end; the first error of a thread is raised."""
        for jobs in self._jobs:
            jobs.put(job)
        errors: list[BaseException | None] = []
        try:
            self._first.run(job)
        finally:
            errors = [self._done.get() for _ in self._jobs]
        for error in errors:
            if error is not None:
                raise error

    def close(self) -> None:
        for jobs in self._jobs:
            jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, worker: _tiler.Worker, jobs: queue.SimpleQueue[_tiler.Job | None]) -> None:
        while (job := jobs.get()) is not None:
            try:
                worker.run(job)
                self._done.put(None)
            except BaseException as error:
                self._done.put(error)
