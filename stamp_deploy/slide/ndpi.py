"""What a Hamamatsu NDPI says of its levels: looked at before OpenSlide is, which ends the process on some of it.

Each level is one JPEG stream, cut by restart markers into intervals, row by row; a tag may list where they begin. By
this list and the size that the file states OpenSlide lays them out: where they are wrong, or a marker has been lost and
there is no list, it shows intervals in the places of others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import COPY_AGAIN, SlideError
from .checks import MAX_SIDE
from .tiff_pages import refusing_damage, tiff_pages

SOURCE_LENS = 65421
HEAD_BYTES = 1 << 16
FIRST_MARKER = 0xFFD0
SAMPLES = 64
"""Places of a list that are looked at; a wrong list is wrong from some place on."""
MAX_INTERVAL_BYTES = 1 << 20
_CHUNK = 1 << 24


def check_ndpi(path: Path) -> None:
    """Refuse levels whose sizes no slide has, or whose restart intervals contradict their size. Other files pass.

    A level without a list of its intervals is read once. What is damaged inside of an interval is left to the reader.

    Raises
    ------
    SlideError
        What it says of a level contradicts itself, or its directories are damaged.
    """
    import tifffile

    if path.suffix.lower() in (".vms", ".vmu"):
        return
    with refusing_damage(path), tifffile.TiffFile(path, is_ndpi=True) as tiff, path.open("rb") as handle:
        levels = [page for page in tiff_pages(tiff) if float(page.tags.valueof(SOURCE_LENS, 0)) > 0]
        found = [_why_not(page, handle) for page in levels]
    for number, why in enumerate(found):
        if why:
            raise SlideError(f"picture {number} of the slide {why}", path=path, remedy=COPY_AGAIN)


def _why_not(page: Any, handle: BinaryIO) -> str:
    """What is wrong with a level, in words; empty where nothing is."""
    from tifffile.tifffile import ndpi_jpeg_tile

    width, height = page.imagewidth, page.imagelength
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        return f"states a size of {width} x {height} px"
    listed = bool(page.tilewidth)
    begin = int(page.dataoffsets[0])
    if listed:
        tile_w, tile_h, size = page.tilewidth, page.tilelength, sum(page.databytecounts)
        places = np.array(page.dataoffsets, np.int64)
    else:
        handle.seek(begin)
        try:
            tile_h, tile_w, head = ndpi_jpeg_tile(handle.read(HEAD_BYTES))
        except ValueError:
            return ""  # one interval
        size = int(page.databytecounts[0])
        begin, size = begin + len(head), size - len(head)
        places = np.array([begin], np.int64)
    cells = -(-width // tile_w) * -(-height // tile_h)
    if not listed and cells > 1:
        found, numbers = _markers(handle, begin, size)
        places = np.concatenate([places, found + 2])
        if len(places) == cells and (numbers != np.arange(cells - 1) % 8).any():
            return "has lost restart markers"
    if len(places) != cells:
        return f"holds {len(places)} restart intervals where its {width} x {height} px need {cells}"
    return _why_not_listed(handle, places, begin + size) if listed else ""


def _why_not_listed(handle: BinaryIO, places: NDArray[np.int64], end: int) -> str:
    """What is wrong with a list of intervals."""
    wrong = "lists other places for its restart intervals than they have"
    if (np.diff(places, append=end) <= 0).any():
        return wrong
    for number in np.unique(np.linspace(1, len(places) - 1, SAMPLES).astype(int)) if len(places) > 1 else ():
        handle.seek(places[number] - 2)
        marker = handle.read(2)
        if (
            len(marker) == 2
            and marker[0] == 0xFF
            and 0xD0 <= marker[1] <= 0xD7
            and marker[1] - 0xD0 != (number - 1) % 8
        ):
            return wrong
    ends = np.append(places, end)
    for first, last in ((ends[0], ends[1] - 2), (ends[-2], ends[-1])):  # the others begin where these end
        if len(_markers(handle, int(first), min(int(last - first), MAX_INTERVAL_BYTES))[0]):
            return wrong
    return ""


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
