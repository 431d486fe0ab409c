"""The elements of a DICOM file up to its pixel data: where each begins and ends, and the few that are read.

pydicom parses what is wanted, but it also parses each of the 100,000 items of a per-frame sequence on its way to the
pixel data, for many seconds. Here sequences are stepped over. Only explicit VR, little endian: every transfer syntax of
compressed pixels is.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from .elements import (
    EXTENDED_LENGTHS,
    EXTENDED_OFFSETS,
    ITEM,
    ITEM_END,
    PER_FRAME,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED,
    HeaderError,
    element_head,
)
from .positions import read_per_frame

OTHER_ENCODINGS = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
"""Implicit VR, big endian, deflated."""

KEPT = (
    "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "ConcatenationUID",
    "InConcatenationNumber", "InConcatenationTotalNumber", "ConcatenationFrameOffsetNumber",
    "SOPInstanceUIDOfConcatenationSource", "DimensionOrganizationType", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "TotalPixelMatrixColumns", "TotalPixelMatrixRows", "TotalPixelMatrixFocalPlanes",
    "OpticalPathSequence", "NumberOfOpticalPaths", "SharedFunctionalGroupsSequence",
)  # fmt: skip
"""What is parsed. Nothing of people is among it."""
MAX_ELEMENTS, MAX_DEPTH, MAX_KEPT_BYTES = 200_000, 32, 64 << 20
_META_START, _TRANSFER_SYNTAX = 132, 0x00020010


@dataclass(frozen=True)
class Element:
    """Where a value lies: bytes in the file; `end` is 0 where only its own content tells."""

    vr: bytes
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What stands before the pixel data.

    Attributes
    ----------
    transfer_syntax : str
    data : pydicom.Dataset
        The elements of KEPT.
    elements : mapping of int to Element
        Pixel data, tables of offsets and the per-frame sequence, by tag.
    """

    transfer_syntax: str
    data: Any
    elements: Mapping[int, Element]


def read_header(handle: IO[bytes], size: int) -> Header | None:
    """The header of an open DICOM file of `size` bytes; None where its encoding is another one.

    Raises
    ------
    HeaderError
        It is damaged.
    OSError
        It cannot be read.
    """
    import pydicom

    kept, elements, syntax = bytearray(), {}, ""
    at, before = _META_START, 0
    for _ in range(MAX_ELEMENTS):
        tag, vr, start, length = element_head(_exactly(handle, at, 12, size), at)
        if tag <= before:
            raise HeaderError("its elements are not in order")
        if tag > 0x0002FFFF and not syntax:
            raise HeaderError("it states no transfer syntax")
        if tag > 0x0002FFFF and syntax in OTHER_ENCODINGS:
            return None
        before = tag
        if tag == PIXEL_DATA:
            elements[tag] = Element(vr, start, 0 if length == UNDEFINED else start + length)
            break
        end = _sequence_end(handle, start, size, tag) if length == UNDEFINED else start + length
        if end > size:
            raise HeaderError("an element reaches beyond the file")
        if tag == _TRANSFER_SYNTAX:
            syntax = _exactly(handle, start, min(length, 64), size).rstrip(b"\0 ").decode("ascii", "replace")
        elif tag in (PER_FRAME, EXTENDED_OFFSETS, EXTENDED_LENGTHS):
            elements[tag] = Element(vr, start, end if length != UNDEFINED else 0)
        elif tag in _kept_tags():
            if len(kept) + end - at > MAX_KEPT_BYTES:
                raise HeaderError("its header is too long")
            kept += _exactly(handle, at, end - at, size)
        at = end
    else:
        raise HeaderError("it has no end")
    data = pydicom.filereader.read_dataset(io.BytesIO(bytes(kept)), is_implicit_VR=False, is_little_endian=True)
    return Header(syntax, data, elements)


def read_header_of(path: Path) -> Header | None:
    """The header of a DICOM file, cached by the file's identity (see `read_header`)."""
    stat = path.stat()
    return _read_header_of(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=32)
def _read_header_of(path: Path, key: tuple[int, ...]) -> Header | None:
    with path.open("rb", buffering=1 << 16) as handle:
        return read_header(handle, key[2])


@lru_cache(maxsize=1)
def _kept_tags() -> frozenset[int]:
    import pydicom

    return frozenset(int(pydicom.datadict.tag_for_keyword(name) or 0) for name in KEPT)


def _exactly(handle: IO[bytes], at: int, count: int, size: int) -> bytes:
    """Bytes at a place; fewer only where the file ends, and then `element_head` complains."""
    if at > size:
        raise HeaderError("it ends early")
    handle.seek(at)
    return handle.read(count)


def _sequence_end(handle: IO[bytes], at: int, size: int, tag: int) -> int:
    """Where a sequence of undefined length ends; one with an item for each frame is read as a whole."""
    if tag == PER_FRAME:
        return read_per_frame(handle, at, 0, size).end
    depth = 1
    for _ in range(MAX_ELEMENTS):
        tag, vr, start, length = element_head(_exactly(handle, at, 12, size), at)
        at = start
        if tag in (ITEM_END, SEQUENCE_END):
            depth -= 1
            if depth == 0:
                return at
        elif length == UNDEFINED:
            if tag != ITEM and vr not in (b"SQ", b"UN"):
                raise HeaderError("a value has no length")
            depth += 1
            if depth > MAX_DEPTH:
                raise HeaderError("its sequences lie too deep in each other")
        else:
            at += length  # defined: whatever is in it, it ends there
        if at > size:
            raise HeaderError("an element reaches beyond the file")
    raise HeaderError("a sequence has no end")
