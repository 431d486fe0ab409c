"""Model tiles of one slide, decoded ahead of whoever consumes them.

A `TileSource` runs a producer thread that fills slots of a bounded ring and hands them over as `TileBatch`es.
When the consumer is slower, the ring is full and the producer waits; when it is done or goes away, `close`
stops the producer and frees the slots. Which reader fills the slots (the compiled tiler or a general reader)
is the slide's route, and cannot be told from the batches.
"""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import SlideError
from ..grid import TileSet
from ..memory import fresh_pages
from ..slide import Slide
from .read_plan import ReadPlan

Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8]]


class TileStatus(IntEnum):
    """What became of a tile. Only OK tiles may be scored."""

    OK = 0
    MISSING = 1
    CORRUPT = 2
    TIMEOUT = 3


@dataclass(frozen=True, eq=False)
class TileBatch:
    """Some tiles of a slide.

    Attributes
    ----------
    pixels : uint8 [N, T, T, 3]
        RGB, C-contiguous; a view of a ring slot, valid until the next batch is asked for. The pixels of a tile
        that is not OK are unspecified.
    coords : int64 [N, 2]
        Top-left corners (x, y), level-0 pixels.
    index : int64 [N]
        Positions in the TileSet.
    status : uint8 [N]
        TileStatus of each tile.
    """

    pixels: NDArray[np.uint8]
    coords: NDArray[np.int64]
    index: NDArray[np.int64]
    status: NDArray[np.uint8]


@dataclass
class StageTimes:
    """Thread-seconds that reading took, summed over threads, and what was read."""

    read_s: float = 0.0
    decode_s: float = 0.0
    resample_s: float = 0.0
    blocked_s: float = 0.0
    storage_tiles: int = 0
    bytes_read: int = 0


class Stopped(Exception):
    """The consumer went away: the producer ends without a word."""


class Reader(Protocol):
    """A route's way to fill slots.

    `order` lists the TileSet positions in the order in which the reader wants to serve them; `fill` decodes
    the tiles at `index` into `out` uint8 [n, T, T, 3] and returns their status uint8 [n]. `late` raises
    Stopped or returns whether the time limit has passed. `stop`, from any thread, ends a `fill` early.
    """

    plan: ReadPlan
    order: NDArray[np.int64]

    def fill(
        self, index: NDArray[np.int64], out: NDArray[np.uint8], times: StageTimes, late: Callable[[], bool]
    ) -> NDArray[np.uint8]: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, eq=False)
class _Filled:
    slot: int
    batch: TileBatch


@dataclass
class TileSource:
    """An iterable, once, of the tiles of a slide; a context manager whose exit cancels.

    Attributes
    ----------
    plan : ReadPlan
    times : StageTimes
    ok, missing, corrupt, timeout : int
        Tiles handed over so far, by status.
    """

    reader: Reader
    tileset: TileSet
    batch: int
    slots: int
    deadline: float
    allocate: Allocate
    name: str = ""
    times: StageTimes = field(default_factory=StageTimes)
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
        self._stop = threading.Event()
        self._ahead = threading.Event()
        self._started = False
        self._thread = threading.Thread(target=self._produce, name="tiles", daemon=True)
        self._thread.start()

    @property
    def plan(self) -> ReadPlan:
        return self.reader.plan

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
            item = self._full.get()
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

    def close(self) -> None:
        """Stop decoding and free the slots; safe to call twice."""
        self._stop.set()
        self.reader.stop()
        self._free.put(None)
        self._thread.join()
        self.reader.close()
        self._ring = []

    def __enter__(self) -> TileSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _late(self) -> bool:
        if self._stop.is_set():
            raise Stopped
        return time.monotonic() > self.deadline

    def _produce(self) -> None:
        order = self.reader.order
        try:
            for start in range(0, len(order), self.batch):
                clock = time.perf_counter()
                if self._free.empty():
                    self._ahead.set()
                slot = self._free.get()
                self.times.blocked_s += time.perf_counter() - clock
                if slot is None or self._stop.is_set():
                    return
                index = order[start : start + self.batch]
                pixels = self._ring[slot][: len(index)]
                status = self.reader.fill(index, pixels, self.times, self._late)
                batch = TileBatch(pixels, self.tileset.coords[index], index, status)
                self._full.put(_Filled(slot, batch))
            self._ahead.set()
            self._full.put(None)
        except Stopped:
            return
        except BaseException as error:
            self._full.put(error)


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
        Tiles a batch; the last one may be smaller.
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
    threads = threads or len(os.sched_getaffinity(0))
    deadline = math.inf if time_limit_s is None else time.monotonic() + time_limit_s
    reader = _open_reader(slide, tileset, threads=threads, exact=exact, deadline=deadline)
    return TileSource(reader, tileset, batch, slots, deadline, allocate or fresh_pages, slide.path.name)


def _open_reader(slide: Slide, tileset: TileSet, *, threads: int, exact: bool, deadline: float) -> Reader:
    if slide.route.name == "jpeg-tiff":
        from .jpeg_reader import JpegReader

        return JpegReader(slide, tileset, threads=threads, exact=exact, deadline=deadline)
    if slide.route.name in ("openslide", "pyvips"):
        from .region_reader import RegionReader

        return RegionReader(slide, tileset)
    raise SlideError(f"route {slide.route.name} is unknown", path=slide.path)
