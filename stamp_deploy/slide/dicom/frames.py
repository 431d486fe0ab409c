"""Where the frames of encapsulated pixel data lie: by an extended or a basic table of offsets, or by walking the items.

A frame is a run of items (fragments), headers included: offset and size of the run. What stands in the run is looked at
when it is decoded: the C core joins the fragments and refuses a run that is none.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .elements import EXTENDED_LENGTHS, EXTENDED_OFFSETS, ITEM, PIXEL_DATA, SEQUENCE_END, UNDEFINED, HeaderError
from .header import Header

HEAD = 8
"""Bytes of an item's header."""
_BEGINNINGS = (b"\xff\xd8", b"\xff\x4f")
"""Of a JPEG and a JPEG 2000 stream."""
_MOST = 1 << 60
"""More bytes than any file has. Whether a frame lies inside of the file the core says when it reads it."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Where each frame lies: int64 [frames], bytes of the file."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


def find_frames(handle: IO[bytes], header: Header, count: int, size: int) -> Frames:
    """The frames of a file of `size` bytes that states `count` of them.

    Raises
    ------
    HeaderError
        The pixel data are not encapsulated, or contradict the number of frames or their table of offsets.
    OSError
        They cannot be read.
    """
    pixels = header.elements[PIXEL_DATA]
    if pixels.end or pixels.vr not in (b"OB", b"OW"):
        raise HeaderError("its pixel data are not encapsulated")
    length = _item(handle, pixels.start, size)
    if length is None or count < 1 or pixels.start + HEAD + length > size:
        raise HeaderError("its pixel data do not begin with a table of offsets")
    first = pixels.start + HEAD + length
    extended = _table(handle, header, EXTENDED_OFFSETS, count, size)
    if extended is not None:
        if length:
            raise HeaderError("it has two tables of offsets")
        return _by_extended(handle, header, first, extended, count, size)
    if length:
        if length != 4 * count:
            raise HeaderError(f"its table of offsets has {length // 4} entries for {count} frames")
        handle.seek(pixels.start + HEAD)
        table = np.frombuffer(handle.read(length), "<u4").astype(np.int64)
        return _by_offsets(handle, first + table, size)
    return _by_walk(handle, first, count, size)


def _by_extended(
    handle: IO[bytes], header: Header, first: int, table: NDArray[np.int64], count: int, size: int
) -> Frames:
    lengths = _table(handle, header, EXTENDED_LENGTHS, count, size)
    if lengths is None:
        return _by_offsets(handle, first + table, size)
    # an item's length is even; the table may give the stream's own
    return Frames(first + table, HEAD + lengths + (lengths & 1))


def _by_offsets(handle: IO[bytes], offsets: NDArray[np.int64], size: int) -> Frames:
    """A frame ends where the next one in the file begins; frames may share a place, or stand in another order."""
    places = np.unique(offsets)
    ends = np.append(places[1:], _end_of_items(handle, int(places[-1]), size))
    # beyond the file nothing is: the core says so when it reads there
    return Frames(offsets, np.maximum(ends[np.searchsorted(places, offsets)] - offsets, HEAD))


def _by_walk(handle: IO[bytes], first: int, count: int, size: int) -> Frames:
    """Every item from the first to the delimiter; several of one frame are told by where a stream begins."""
    offsets, starts, at = [], [], first
    while (length := _item(handle, at, size)) is not None:
        offsets.append(at)
        starts.append(handle.read(2) in _BEGINNINGS)
        at += HEAD + length
        if at > size:
            raise HeaderError("a fragment reaches beyond the file")
    begins = np.array(offsets, np.int64)
    if len(offsets) != count:
        begins = begins[np.array(starts, bool)]
        if len(begins) != count or not starts[0]:
            raise HeaderError(f"its {len(offsets)} fragments are not {count} frames")
    return Frames(begins, np.diff(begins, append=at))


def _end_of_items(handle: IO[bytes], at: int, size: int) -> int:
    """Where the run of items that begins at a place ends: at the delimiter, or where the file does."""
    for _ in range(size // HEAD):
        length = _item(handle, at, size) if at + HEAD <= size else None
        if length is None:
            return min(at, size)
        at += HEAD + length
    return size


def _item(handle: IO[bytes], at: int, size: int) -> int | None:
    """The length of the item at a place; None for the delimiter of the sequence.

    Raises
    ------
    HeaderError
        Something else stands there.
    """
    handle.seek(at)
    head = handle.read(HEAD)
    if at + HEAD > size or len(head) < HEAD:
        raise HeaderError("its pixel data end early")
    group, element, length = struct.unpack("<HHL", head)
    tag = group << 16 | element
    if tag == SEQUENCE_END:
        return None
    if tag != ITEM or length == UNDEFINED:
        raise HeaderError("its pixel data are no sequence of fragments")
    return int(length)


def _table(handle: IO[bytes], header: Header, tag: int, count: int, size: int) -> NDArray[np.int64] | None:
    """A table of 64-bit numbers; None where there is none."""
    element = header.elements.get(tag)
    if element is None:
        return None
    if element.end - element.start != 8 * count:
        raise HeaderError(f"its table of offsets has {(element.end - element.start) // 8} entries for {count} frames")
    handle.seek(element.start)
    values = np.frombuffer(handle.read(8 * count), "<u8")
    if len(values) != count or (values > _MOST).any():
        raise HeaderError("its table of offsets holds impossible numbers")
    return values.astype(np.int64)
