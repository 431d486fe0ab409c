"""Model tiles of one slide, decoded ahead of whoever consumes them.

A `TileSource` runs a producer thread that fills slots of a bounded ring and hands them over as `TileBatch`es.
When the consumer is slower, the ring is full and the producer waits; when it is done or goes away, `close`
stops the producer and frees the slots. Which reader fills the slots (the compiled tiler or a general reader)
is the slide's route, and cannot be told from the batches.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..errors import COPY_AGAIN, SlideError
from ..grid import TileSet
from ..slide import Slide
from ..slide.icc import SrgbTransform
from ..system.isolation import LIMIT_GRACE_S
from ..system.memory import fresh_pages
from ..system.processor import usable_cores
from .read_plan import ReadPlan
from .reader import Reader, StageTimes, Stop, TileBatch, TileStatus

Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class _Filled:
    slot: int
    batch: TileBatch


@dataclass
class TileSource:
    """An iterable, once, of the tiles of a slide; a context manager whose exit cancels.

    Attributes
    ----------
    stop : Stop
        Shared with the reader: asked for by `close`, reached when the time limit has passed.
    deadline : float
        Moment of time.monotonic() after which a reader that does not come back has hung.
    path : Path, optional
        The slide, for messages.
    to_srgb : SrgbTransform, optional
        Converts the tiles' colours before they are handed over.
    hung : bool
        A decoder did not come back: it may still use the slide, which must not be closed.
    ok, missing, corrupt, timeout : int
        Tiles handed over so far, by status.
    """

    reader: Reader
    tileset: TileSet
    batch: int
    slots: int
    stop: Stop
    allocate: Allocate
    deadline: float = math.inf
    path: Path | None = None
    to_srgb: SrgbTransform | None = None
    ok: int = 0
    missing: int = 0
    corrupt: int = 0
    timeout: int = 0

    def __post_init__(self) -> None:
        tile = self.tileset.grid.tile_px
        size = max(1, min(self.batch, len(self.tileset)))
        self._ring = [self.allocate((size, tile, tile, 3)) for _ in range(self.slots)]
        # the slot freed last is filled next: it may lie in a cache, and one that is never needed takes no memory
        self._free: queue.LifoQueue[int | None] = queue.LifoQueue()
        for slot in range(self.slots):
            self._free.put(slot)
        self._full: queue.SimpleQueue[_Filled | BaseException | None] = queue.SimpleQueue()
        self._ahead = threading.Event()
        self.hung = False
        self._started = False
        self._blocked_s = 0.0
        self._thread = threading.Thread(target=self._produce, name="tiles", daemon=True)
        self._thread.start()

    @property
    def plan(self) -> ReadPlan:
        return self.reader.plan

    @property
    def failure(self) -> SlideError | None:
        """The first error that made a tile CORRUPT, where the reader gives one."""
        return self.reader.failure

    @property
    def times(self) -> StageTimes:
        """What reading has taken so far, and how long the reader waited for a free slot."""
        return replace(self.reader.times, blocked_s=self._blocked_s)

    @property
    def ahead(self) -> bool:
        """Whether every slot has been full, or all is decoded: decoding is no slower than the consumer so far."""
        return self._ahead.is_set()

    def __iter__(self) -> Iterator[TileBatch]:
        if self._started:
            raise RuntimeError("a TileSource can be iterated once")
        self._started = True
        held: int | None = None
        while True:
            if held is not None:
                self._free.put(held)
            item = self._next()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            held = item.slot
            counts = np.bincount(item.batch.status, minlength=4)
            self.ok += int(counts[TileStatus.OK])
            self.missing += int(counts[TileStatus.MISSING])
            self.corrupt += int(counts[TileStatus.CORRUPT])
            self.timeout += int(counts[TileStatus.TIMEOUT])
            yield item.batch

    def _next(self) -> _Filled | BaseException | None:
        """What the reader hands over next; one that does not come back after the time limit is left to itself."""
        try:
            return self._full.get(timeout=_patience_s(self.deadline))
        except queue.Empty:
            self.hung = True
            raise SlideError(
                "was given up: a decoder did not come back within the time limit",
                path=self.path,
                remedy=f"raise --time-limit, or {COPY_AGAIN}",
            ) from None

    def close(self) -> None:
        """Stop decoding and free the slots, unless a decoder hangs in them; safe to call twice."""
        self.stop.set()
        self._free.put(None)
        if self.hung:
            return
        self._thread.join()
        self.reader.close()
        self._ring = []

    def __enter__(self) -> TileSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _produce(self) -> None:
        order = self.reader.order
        try:
            for start in range(0, len(order), self.batch):
                clock = time.perf_counter()
                if self._free.empty():
                    self._ahead.set()
                slot = self._free.get()
                self._blocked_s += time.perf_counter() - clock
                if slot is None or self.stop.asked:
                    return
                index = order[start : start + self.batch]
                pixels = self._ring[slot][: len(index)]
                status = self.reader.fill(index, pixels)
                if self.to_srgb is not None:
                    self.to_srgb.convert(pixels)
                if self.stop.asked:  # nobody waits for what was left undecoded
                    return
                batch = TileBatch(pixels, self.tileset.coords[index], index, status)
                self._full.put(_Filled(slot, batch))
            self._ahead.set()
            self._full.put(None)
        except BaseException as error:
            self._full.put(error)


def _patience_s(deadline: float) -> float | None:
    """How long to wait for a batch: to the time limit and a little longer, since a batch may be under way."""
    return None if deadline == math.inf else max(LIMIT_GRACE_S, deadline + LIMIT_GRACE_S - time.monotonic())


def open_tiles(
    slide: Slide,
    tileset: TileSet,
    *,
    batch: int,
    threads: int = 0,
    exact: bool = False,
    time_limit_s: float | None = None,
    slots: int = 3,
    allocate: Allocate | None = None,
) -> TileSource:
    """Start decoding a slide's tiles; every tile of `tileset` comes back exactly once.

    Parameters
    ----------
    slide : Slide
    tileset : TileSet
    batch : int
        Tiles per batch; the last one may be smaller.
    threads : int
        Decoding threads; 0 takes every core of the process.
    exact : bool
        Decode at full scale and resample, instead of using the decoder's reduced scales.
    time_limit_s : float, optional
        Seconds after which tiles that are not decoded yet are handed over as TIMEOUT.
    slots : int
        Batches in the ring, 2 or more.
    allocate : callable, optional
        Makes a slot's array from its shape: pinned memory, say.

    Raises
    ------
    SlideError
        The route cannot read this slide.
    """
    if batch < 1 or slots < 2:
        raise ValueError(f"batch {batch} or slots {slots} out of range")
    threads = threads or usable_cores()
    deadline = math.inf if time_limit_s is None else time.monotonic() + time_limit_s
    stop = Stop(deadline)
    reader = _open_reader(slide, tileset, threads=threads, exact=exact, stop=stop)
    return TileSource(
        reader, tileset, batch, slots, stop, allocate or fresh_pages, deadline, slide.path, slide.colours.to_srgb
    )


def _open_reader(slide: Slide, tileset: TileSet, *, threads: int, exact: bool, stop: Stop) -> Reader:
    if slide.route.by_storage:
        from .areas_reader import open_storage

        return open_storage(slide, tileset, threads=threads, exact=exact, stop=stop)
    from .region_reader import RegionReader

    return RegionReader(slide, tileset, stop)
