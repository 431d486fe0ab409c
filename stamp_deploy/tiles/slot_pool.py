"""Where decoded storage tiles are held: a pool of slots that grows as needed and is used again and again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _tiler
from ..system.memory import fresh_pages

ROOM_BYTES = 64 << 20
"""The pool's size at first; what no storage tile has been put into takes no memory."""
POOL_BYTES = 1 << 30
"""Decoded storage tiles that are held at most; a slide that needs more is refused."""


class PoolFull(Exception):
    """More decoded storage tiles are needed at once than POOL_BYTES holds; `slots` of `slot_bytes` each."""

    def __init__(self, slots: int, slot_bytes: int) -> None:
        super().__init__(f"{slots} slots of {slot_bytes} bytes")
        self.slots, self.slot_bytes = slots, slot_bytes


class SlotPool:
    """The storage tiles of one level that are decoded at the moment.

    Parameters
    ----------
    rows, columns : int
        Storage tiles of the level.
    slot_bytes : int
        Memory of a decoded storage tile.
    image_w, image_h : int
        Size of the level at the decoding scale, pixels.

    Attributes
    ----------
    decoded : _tiler.Decoded
        The pool as the C core reads and fills it; another object after the pool has grown.
    state : uint8 [rows * columns]
        Status of each storage tile; UNREAD before it is decoded and after it is forgotten.
    held_most : int
        How many slots were in use at most so far.
    """

    def __init__(self, rows: int, columns: int, slot_bytes: int, image_w: int, image_h: int) -> None:
        shape = rows, columns
        self._slot = np.full(shape, -1, np.int32)
        self._state = np.full(shape, _tiler.UNREAD, np.uint8)
        self._layout = np.zeros(shape, np.uint8)
        self._image = image_w, image_h
        self._pool = fresh_pages((max(1, ROOM_BYTES // slot_bytes), slot_bytes))
        self._free = list(range(len(self._pool)))[::-1]
        self.held_most = 0
        self.state = self._state.reshape(-1)
        self.decoded = self._describe()

    def take(self, count: int) -> NDArray[np.int32]:
        """Free slots, the one that was freed last first: it may still lie in a cache.

        Raises
        ------
        PoolFull
            The pool may not grow as far as that.
        """
        short = count - len(self._free)
        if short > 0:
            self._grow(short)
        self.held_most = max(self.held_most, len(self._pool) - len(self._free) + count)
        return np.array([self._free.pop() for _ in range(count)], np.int32)

    def give_back_unused(self, cells: NDArray[np.int64], slots: NDArray[np.int32]) -> None:
        """Free the slots of those storage tiles that were not decoded into theirs: missing, corrupt, not reached."""
        unused = self._slot.reshape(-1)[cells] != slots
        self._free.extend(slots[unused].tolist())

    def forget(self, cells: NDArray[np.int64]) -> None:
        """Free the slots of storage tiles that nothing needs any more."""
        slot = self._slot.reshape(-1)
        self._free.extend(slot[cells][slot[cells] >= 0].tolist())
        slot[cells] = -1
        self.state[cells] = _tiler.UNREAD

    def _grow(self, short: int) -> None:
        old, slot_bytes = self._pool.shape
        new = 2 * old + short
        if new * slot_bytes > POOL_BYTES:
            new = old + short
        if new * slot_bytes > POOL_BYTES:
            raise PoolFull(new, slot_bytes)
        grown = fresh_pages((new, slot_bytes))
        used = np.flatnonzero(~np.isin(np.arange(old), self._free))
        grown[used] = self._pool[used]
        self._free[:0] = range(old, new)
        self._pool = grown
        self.decoded = self._describe()

    def _describe(self) -> _tiler.Decoded:
        return _tiler.Decoded(self._pool, self._slot, self._state, self._layout, *self._image)
