"""What a reader of tiles promises, and what it hands over: the contract between a route and its consumers."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .._tiler import Stop
from ..errors import SlideError
from .read_plan import ReadPlan

__all__ = ["Reader", "StageTimes", "Stop", "TileBatch", "TileStatus"]


class TileStatus(IntEnum):
    """What became of a tile, as the C core numbers it. Only OK tiles may be scored."""

    OK = 0
    MISSING = 1
    CORRUPT = 2
    TIMEOUT = 3


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        count, side = self.pixels.shape[:2]
        return f"<TileBatch: {count} tiles of {side} px, {int((self.status == TileStatus.OK).sum())} of them readable>"


@dataclass
class StageTimes:
    """Thread-seconds that reading took, summed over threads, and what was read."""

    read_s: float = 0.0
    decode_s: float = 0.0
    resample_s: float = 0.0
    blocked_s: float = 0.0
    storage_tiles: int = 0
    bytes_read: int = 0

    def __add__(self, other: StageTimes) -> StageTimes:
        """Both together."""
        return StageTimes(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


class Reader(Protocol):
    """A route's way to fill slots.

    `order` lists the TileSet positions in the order in which the reader wants to serve them; `fill` decodes
    the tiles at `index`, which continue that order, into `out` uint8 [n, T, T, 3] and returns their status
    uint8 [n]. A reader is opened with a Stop, shared with whoever opened it: once it is reached, `fill` returns
    soon, and what is not decoded is TIMEOUT. `times` is what reading has taken so far; `failure` is the first
    error that made a tile CORRUPT, where the reader gives one.
    """

    plan: ReadPlan
    order: NDArray[np.int64]
    failure: SlideError | None

    @property
    def times(self) -> StageTimes: ...

    def fill(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.uint8]: ...

    def close(self) -> None: ...
