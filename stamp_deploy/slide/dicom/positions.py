"""Where each frame lies in the picture: the items of the per-frame sequence, all parsed in step.

A slide of 100,000 frames has as many items of twenty elements. One step reads the next element of every item at once,
in numpy: the parse is as strict as one after the other, and takes a fraction of a second. Items of undefined length
begin where the one before ends: any place that could begin one is parsed, and then the chain from the first to the end
of the sequence is followed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .elements import ITEM, ITEM_END, LONG_VRS, SEQUENCE_END, UNDEFINED, HeaderError

COLUMN, ROW = 0x0048021E, 0x0048021F
"""Column and Row Position In Total Image Pixel Matrix, counted from 1: SL, 4 bytes each."""
MAX_STEPS, MAX_BYTES, MAX_DEPTH = 2_000, 2 << 30, 16
_CHUNK = 32 << 20
_ITEM_BYTES = struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
_BETWEEN = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + _ITEM_BYTES
_END_BYTES = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
_IS_LONG = np.zeros(1 << 16, bool)
_IS_LONG[[struct.unpack("<H", vr)[0] for vr in LONG_VRS]] = True
_SQ, _UN = struct.unpack("<H", b"SQ")[0], struct.unpack("<H", b"UN")[0]
NOT_STATED, TWICE = -(1 << 40), -(1 << 41)


@dataclass(frozen=True, eq=False)
class PerFrame:
    """What the per-frame sequence says.

    Attributes
    ----------
    columns, rows : int64 [frames]
        Of the frame's first pixel, counted from 1; NOT_STATED where an item does not say.
    end : int
        Where the sequence ends in the file.
    """

    columns: NDArray[np.int64]
    rows: NDArray[np.int64]
    end: int


def read_per_frame(handle: IO[bytes], start: int, end: int, size: int) -> PerFrame:
    """Parse the per-frame sequence whose content begins at `start`; `end` is 0 where its length is undefined.

    Raises
    ------
    HeaderError
        It is damaged, or states two positions for one frame.
    OSError
        It cannot be read.
    """
    handle.seek(start)
    if end:
        if end - start > MAX_BYTES:
            raise HeaderError("its per-frame sequence is too long")
        return _parse(handle.read(end - start), start, whole=True)
    data = b""
    while len(data) < min(MAX_BYTES, size - start):
        # what is read beyond the sequence does no harm: the chain of items ends before it
        data += handle.read(max(_CHUNK, len(data)))
        try:
            return _parse(data, start, whole=False)
        except _ReadOnError:
            continue
    raise HeaderError("its per-frame sequence has no end")


class _ReadOnError(HeaderError):
    """The bytes end before the sequence does."""


def _parse(data: bytes, offset: int, *, whole: bool) -> PerFrame:
    lanes = _Lanes(data)
    if data[:8] != _ITEM_BYTES:
        begins, ends, end = _hop(data, whole)
        return PerFrame(*lanes.run(begins, ends)[:2], offset + end)
    begins = _possible_items(data)
    columns, rows, stops = lanes.run(begins, None)
    chain, end = _chain(begins, stops, data, whole)
    if (columns[chain] == TWICE).any() or (rows[chain] == TWICE).any():
        raise HeaderError("it states two positions for one frame")
    return PerFrame(columns[chain], rows[chain], offset + end)


def _hop(data: bytes, whole: bool) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Where the contents of items of stated length begin and end, and where the sequence does."""
    begins, ends, at = [], [], 0
    while not (whole and at == len(data)):
        if at + 8 > len(data):
            raise (HeaderError if whole else _ReadOnError)("its per-frame sequence ends early")
        group, element, length = struct.unpack_from("<HHL", data, at)
        tag, at = group << 16 | element, at + 8
        if tag == SEQUENCE_END and not whole:
            break
        if tag != ITEM or length == UNDEFINED:
            raise HeaderError("an item of its per-frame sequence is damaged")
        begins.append(at)
        at += length
        ends.append(at)
    if ends and ends[-1] > len(data):
        raise HeaderError("its per-frame sequence ends early")
    return np.array(begins, np.int64), np.array(ends, np.int64), at


def _possible_items(data: bytes) -> NDArray[np.int64]:
    """Where the content of an item of undefined length could begin: at first, and after an item's end."""
    begins, at = [8], data.find(_BETWEEN)
    while at >= 0:
        begins.append(at + len(_BETWEEN))
        at = data.find(_BETWEEN, at + 1)
    return np.array(begins, np.int64)


def _chain(
    begins: NDArray[np.int64], stops: NDArray[np.int64], data: bytes, whole: bool
) -> tuple[NDArray[np.int64], int]:
    """The items that follow each other from the first to the end of the sequence, and where that is."""
    number_at = {begin: i for i, begin in enumerate(begins.tolist())}
    stop_list, chain, at = stops.tolist(), [], 8
    while True:
        number = number_at.get(at)
        if number is None or stop_list[number] < 0:
            raise (HeaderError if whole else _ReadOnError)("an item of its per-frame sequence is damaged")
        chain.append(number)
        after = stop_list[number]
        if whole and after == len(data):
            return np.array(chain, np.int64), after
        if data[after : after + 8] == _END_BYTES and not whole:
            return np.array(chain, np.int64), after + 8
        at = after + 8
        if data[after:at] != _ITEM_BYTES:
            raise (HeaderError if whole else _ReadOnError)("an item of its per-frame sequence is damaged")


class _Lanes:
    """One lane an item: its place, and how many sequences and items of undefined length are open around it."""

    def __init__(self, data: bytes) -> None:
        padded, self._size = data + b"\0" * 16, len(data)
        # a number begins at any byte: one view for each width, at a stride of one byte
        self._views = {
            count: np.ndarray((len(padded) - count,), f"<u{count}", padded, strides=(1,)) for count in (2, 4)
        }

    def run(
        self, begins: NDArray[np.int64], ends: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(columns, rows, where each item ends), int64 [items].

        Without `ends` the items are of undefined length, and perhaps none: then the end is -1, and a position that is
        stated twice is TWICE. With `ends` such things are errors.
        """
        count = len(begins)
        columns, rows, stops = (np.full(count, value, np.int64) for value in (NOT_STATED, NOT_STATED, -1))
        lane, at = np.arange(count), begins.copy()
        depth = np.full(count, 1 if ends is None else 0, np.int64)
        limit = np.full(count, self._size, np.int64) if ends is None else ends
        for _ in range(MAX_STEPS):
            if ends is not None:
                lane, at, depth = (part[(at != limit[lane]) | (depth != 0)] for part in (lane, at, depth))
            good = (at + 8 <= limit[lane]) & (depth >= 0) & (depth <= MAX_DEPTH)
            if ends is not None and not good.all():
                raise HeaderError("an item of its per-frame sequence is damaged")
            lane, at, depth = lane[good], at[good], depth[good]
            if lane.size == 0:
                return columns, rows, stops if ends is None else ends
            tag, start, length, opens = self._heads(at)
            closes = (tag == ITEM_END) | (tag == SEQUENCE_END)
            for wanted, found in ((COLUMN, columns), (ROW, rows)):
                here = (tag == wanted) & (length == 4)
                if here.any():
                    self._note(found, lane[here], start[here], strict=ends is not None)
            # a value without a length leads beyond the end
            step = np.where(opens | closes, 0, np.where(length == UNDEFINED, self._size, length))
            at = start + step
            depth = depth + (opens & (length == UNDEFINED)) - closes
            if ends is None:
                done = (tag == ITEM_END) & (depth == 0)
                stops[lane[done]] = at[done]
                lane, at, depth = lane[~done], at[~done], depth[~done]
        raise HeaderError(f"an item of its per-frame sequence has more than {MAX_STEPS} elements")

    def _heads(self, at: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """(tag, start of the value, its length, whether it is a sequence or an item) of the elements at some places."""
        tag = self._number(at, 2) << 16 | self._number(at + 2, 2)
        plain = (tag >> 16) != 0xFFFE
        vr = np.where(plain, self._number(at + 4, 2), 0)
        long = plain & _IS_LONG[vr]
        short = plain & ~long
        length = np.where(short, self._number(at + 6, 2), self._number(np.where(long, at + 8, at + 4), 4))
        opens = (tag == ITEM) | (plain & ((vr == _SQ) | ((vr == _UN) & (length == UNDEFINED))))
        return tag, at + np.where(long, 12, 8), length, opens

    def _note(self, found: NDArray[np.int64], lane: NDArray[np.int64], at: NDArray[np.int64], *, strict: bool) -> None:
        value = self._number(at, 4)
        value = np.where(value >= 1 << 31, value - (1 << 32), value)
        again = found[lane] != NOT_STATED
        if strict and again.any():
            raise HeaderError("it states two positions for one frame")
        found[lane] = np.where(again, TWICE, value)

    def _number(self, at: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Little-endian numbers of 2 or 4 bytes; beyond the content they are zero."""
        view = self._views[count]
        return np.asarray(view[np.minimum(at, len(view) - 1)], np.int64)
