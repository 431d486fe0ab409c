"""The levels of a Hamamatsu NDPI: each one JPEG stream, cut by restart markers into intervals, row by row.

A tag may list where they begin. By this list and the size that the file states OpenSlide lays them out: where they are
wrong, or a marker has been lost and there is no list, it shows intervals in the places of others. On some sizes it ends
the process. So they are looked at before it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import COPY_AGAIN, SlideError
from .checks import MAX_SIDE
from .tiff_pages import MAX_PAGES, file_key, refusing_damage, tiff_pages

SOURCE_LENS, FOCAL_PLANE = 65421, 65424
STARTS, STARTS_HIGH = 65426, 65432
"""The list of intervals: the low halves of their places, and the high ones."""
_ENTRY = np.dtype([("tag", "<u2"), ("kind", "<u2"), ("count", "<u4"), ("value", "<u4")])
HEAD_BYTES = 1 << 16
FIRST_MARKER = 0xFFD0
SAMPLES = 64
"""Places of a list that are looked at; a wrong list is wrong from some place on."""
MAX_INTERVAL_BYTES = 1 << 20
_CHUNK = 1 << 24


@dataclass(frozen=True, eq=False)
class NdpiLevel:
    """A level that is cut into intervals.

    Attributes
    ----------
    width, height : int
        Pixels.
    focal_plane : int
        0 is the one that OpenSlide shows.
    interval_w, interval_h : int
        What an interval shows, pixels.
    head : bytes
        The stream up to the first interval; its frame has the size of one interval.
    places : int64 [intervals]
        Where they begin, bytes.
    end : int
        Where the last one ends.
    """

    width: int
    height: int
    focal_plane: int
    interval_w: int
    interval_h: int
    head: bytes
    places: NDArray[np.int64]
    end: int


def read_ndpi(path: Path) -> tuple[NdpiLevel, ...]:
    """The levels that are cut into intervals; none of a VMS. A level without a list of them is read once.

    What is damaged inside of an interval is left to its reader.

    Raises
    ------
    SlideError
        A level has a size that no slide has, or other intervals than its size needs, or the directories are damaged.
    """
    return () if path.suffix.lower() in (".vms", ".vmu") else _read(path, file_key(path))


@lru_cache(maxsize=4)
def _read(path: Path, key: tuple[int, ...]) -> tuple[NdpiLevel, ...]:
    """Cached by the file's identity: the check before OpenSlide opens it and the provider ask for the same."""
    import tifffile

    _check_lists(path)
    with refusing_damage(path), tifffile.TiffFile(path, is_ndpi=True) as tiff, path.open("rb") as handle:
        pages = [page for page in tiff_pages(tiff) if float(page.tags.valueof(SOURCE_LENS, 0)) > 0]
        found = [_read_page(page, handle) for page in pages]
    for number, level in enumerate(found):
        if isinstance(level, str):
            raise SlideError(f"picture {number} of the slide {level}", path=path, remedy=COPY_AGAIN)
    return tuple(level for level in found if isinstance(level, NdpiLevel))


def _check_lists(path: Path) -> None:
    """Refuse two halves of one list that differ in length: tifffile adds them up while it opens the page.

    Raises
    ------
    SlideError
        They do.
    """
    with refusing_damage(path), path.open("rb") as handle:
        counts = list(_list_lengths(handle))
    for number, (low, high) in enumerate(counts):
        if high not in (0, low):
            raise SlideError(
                f"its page {number} lists the low halves of {low} places of restart intervals, and {high} high halves",
                path=path,
                remedy=COPY_AGAIN,
            )


def _list_lengths(handle: BinaryIO) -> Iterator[tuple[int, int]]:
    """Of each page the lengths of STARTS and STARTS_HIGH, 0 where there is none; ends where the directories do."""
    handle.seek(4)
    place, passed = int.from_bytes(handle.read(8), "little"), set[int]()
    while place and place not in passed and len(passed) < MAX_PAGES:
        passed.add(place)
        handle.seek(place)
        size = int.from_bytes(handle.read(2), "little") * _ENTRY.itemsize
        directory = handle.read(size)
        if len(directory) < size:
            return
        entries = np.frombuffer(directory, _ENTRY)
        low, high = (int(entries["count"][entries["tag"] == tag].sum()) for tag in (STARTS, STARTS_HIGH))
        yield low, high
        place = int.from_bytes(handle.read(8), "little")


def _read_page(page: Any, handle: BinaryIO) -> NdpiLevel | str | None:
    """A level, what is wrong with it in words, or None where it is one interval."""
    from tifffile.tifffile import ndpi_jpeg_tile

    width, height = page.imagewidth, page.imagelength
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        return f"states a size of {width} x {height} px"
    listed = bool(page.tilewidth)
    if listed:
        interval_w, interval_h, head = page.tilewidth, page.tilelength, page.jpegheader
        places = np.array(page.dataoffsets, np.int64)
        end = int(places[-1]) + int(page.databytecounts[-1])
    else:
        begin, size = int(page.dataoffsets[0]), int(page.databytecounts[0])
        handle.seek(begin)
        try:
            interval_h, interval_w, head = ndpi_jpeg_tile(handle.read(HEAD_BYTES))
        except ValueError:
            return None
        places, end = np.array([begin + len(head)], np.int64), begin + size
    cells = -(-width // interval_w) * -(-height // interval_h)
    if not listed and cells > 1:
        found, numbers = _markers(handle, int(places[0]), end - int(places[0]))
        places = np.concatenate([places, found + 2])
        if len(places) == cells and (numbers != np.arange(cells - 1) % 8).any():
            return "has lost restart markers"
    if len(places) != cells:
        return f"holds {len(places)} restart intervals where its {width} x {height} px need {cells}"
    if listed and not _is_true(handle, places, end):
        return "lists other places for its restart intervals than they have"
    focal_plane = int(page.tags.valueof(FOCAL_PLANE, 0))
    return NdpiLevel(width, height, focal_plane, interval_w, interval_h, bytes(head), places, end)


def _is_true(handle: BinaryIO, places: NDArray[np.int64], end: int) -> bool:
    """Whether a list of intervals is right, by a sample of it; a marker that is not there at all is damage."""
    if (np.diff(places, append=end) <= 0).any():
        return False
    for number in np.unique(np.linspace(1, len(places) - 1, SAMPLES).astype(int)) if len(places) > 1 else ():
        handle.seek(places[number] - 2)
        marker = int.from_bytes(handle.read(2), "big")
        if FIRST_MARKER <= marker < FIRST_MARKER + 8 and marker - FIRST_MARKER != (number - 1) % 8:
            return False
    ends = np.append(places, end)
    runs = (ends[0], ends[1] - 2), (ends[-2], ends[-1])  # the others begin where these end
    return not any(len(_markers(handle, int(a), min(int(b - a), MAX_INTERVAL_BYTES))[0]) for a, b in runs)


def _markers(handle: BinaryIO, begin: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(places, numbers 0 to 7) of the restart markers in a run of bytes."""
    found = list(_pieces(handle, begin, size))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate([at for at, _ in found]), np.concatenate([numbers for _, numbers in found])


def _pieces(handle: BinaryIO, begin: int, size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    handle.seek(begin)
    last, at = b"", begin
    while size > 0 and (data := handle.read(min(_CHUNK, size))):
        size -= len(data)
        piece = np.frombuffer(last + data, np.uint8)
        first = at - len(last)
        marks = np.flatnonzero(piece[:-1] == 0xFF)
        numbers = piece[marks + 1].astype(np.int64) - (FIRST_MARKER & 0xFF)
        good = (numbers >= 0) & (numbers < 8)
        yield marks[good] + first, numbers[good]
        last, at = data[-1:], at + len(data)
