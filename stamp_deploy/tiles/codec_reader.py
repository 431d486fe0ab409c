"""Storage tiles that the compiled tiler does not decode, JPEG 2000 above all: each is decoded once, several at a time.

Each thread has a helper process of its own, so that a crafted stream costs its own storage tile alone. The order, the
pool and the assembly are those of the compiled route.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from .. import _tiler
from ..codecs import Decoder, StreamError
from ..codecs.decoder import read_stream
from ..errors import COPY_AGAIN, SlideError
from ..grid import TileSet
from ..slide import Slide
from ..slide.storage import StorageGrid
from .jpeg_reader import JpegReader
from .read_plan import ReadPlan
from .reader import StageTimes, Stop


class CodecReader(JpegReader):
    """Fills tiles from one grid of storage tiles that a library decodes (see JpegReader, also for the parameters)."""

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
        self._kind, self._in_items = grid.stream(plan.dct_scale), grid.in_items
        self._decoders = [Decoder() for _ in range(threads)]
        self._idle: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
        for decoder in self._decoders:
            self._idle.put(decoder)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="codec")
        self._took, self._taking, self._errno = StageTimes(), threading.Lock(), 0
        super().__init__(slide, tileset, grid, plan, threads=threads, exact=exact, stop=stop)

    @property
    def times(self) -> StageTimes:
        """Of all threads so far."""
        return super().times + self._took

    def close(self) -> None:
        """End the threads and the helpers, and close the files."""
        self._threads.shutdown(cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()
        super().close()

    def _decode(self, cells: NDArray[np.int64], slots: NDArray[np.int32], tiles: _tiler.Tiles) -> None:
        """Decode some storage tiles while the model tiles of what is decoded are assembled."""
        there = self._sizes[cells] > 0
        self._pool.state[cells[~there]] = self._absent
        work = list(zip(cells[there].tolist(), slots[there].tolist(), strict=True))
        decoded = [self._threads.submit(self._decode_one, cell, slot) for cell, slot in work]
        super()._decode(cells[:0], slots[:0], tiles)
        for done in decoded:
            done.result()

    def _decode_one(self, cell: int, slot: int) -> None:
        if self._stop.reached:
            return
        clock = time.perf_counter()
        try:
            fd, offset, size = int(self._fds[self._files[cell]]), int(self._offsets[cell]), int(self._sizes[cell])
            data = read_stream(fd, offset, size, in_items=self._in_items)
        except OSError as error:
            self._errno = error.errno or 0  # the storage tile stays unread
            return
        except StreamError as error:
            self._spoil(cell, str(error))
            return
        read = time.perf_counter()
        decoder = self._idle.get()
        try:
            self._pool.decoded.put(cell, slot, decoder.decode(data, self._kind, lambda: self._stop.reached))
        except StreamError as error:
            if not self._stop.reached:
                self._spoil(cell, str(error))
        finally:
            self._idle.put(decoder)
        with self._taking:
            self._took.read_s += read - clock
            self._took.decode_s += time.perf_counter() - read
            self._took.storage_tiles += 1
            self._took.bytes_read += len(data)

    def _spoil(self, cell: int, why: str) -> None:
        """Mark a storage tile as one that cannot be decoded."""
        row, column = divmod(cell, self._columns)
        self.failure = self.failure or SlideError(
            f"cannot be decoded at storage tile ({column}, {row}) of level {self.plan.level}: {why}",
            path=self._path,
            remedy=COPY_AGAIN,
        )
        self._pool.state[cell] = _tiler.CORRUPT

    def _fault(self) -> str | None:
        code, self._errno = self._errno, 0
        return os.strerror(code).lower() if code else None
