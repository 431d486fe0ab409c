"""The pages of a TIFF file that are pyramid levels, and where their storage tiles lie.

tifffile walks the directories, in Python: no C code of ours parses a file's structure.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codecs import Coding
from ..system.memory import release_memory
from .backends import Level
from .jpeg_header import HEADER_BYTES, RGB, YCBCR, stated_colours
from .storage.index import MAX_TILE_SIDE, MIN_TILE_SIDE, StorageGrid
from .tiff_pages import IMAGE_DESCRIPTION, MASK, file_key, refusing_damage, tiff_pages

JPEG = 7
_CODINGS = {
    JPEG: Coding.JPEG, 33003: Coding.JPEG_2000, 33005: Coding.JPEG_2000, 34712: Coding.JPEG_2000,
    50002: Coding.JPEG_XL, 52546: Coding.JPEG_XL, 34927: Coding.WEBP, 50001: Coding.WEBP,
    8: Coding.DEFLATE, 32946: Coding.DEFLATE, 5: Coding.LZW, 34926: Coding.ZSTD, 50000: Coding.ZSTD,
}  # fmt: skip
"""By TIFF's Compression."""
_APERIO_COLOURS = {33003: YCBCR, 33005: RGB}
"""Aperio's codings say what they hold, whatever the colour tag says."""
_DIFFERENCES = 2
MAX_SUB_PAGES = 64  # more than any pyramid has levels
SAMPLES = 3
"""Storage tiles of a page whose headers are looked at: the first, the middle and the last."""


def read_levels(
    path: Path, levels: Sequence[Level], numbers: Sequence[int] | None = None, vendor: str | None = None
) -> list[StorageGrid | str]:
    """The storage tiles of each pyramid level, or why that level cannot be read by them.

    Parameters
    ----------
    path : Path
    levels : sequence of Level
    numbers : sequence of int, optional
        The number of each in the file, as OpenSlide counts; their index by default.
    vendor : str, optional
        As for `read_pages`. The pages of a vendor may be padded: the part that the level shows is taken.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories are damaged.
    """
    pages = read_pages(path, vendor)
    found: list[StorageGrid | str] = []
    for number, level in zip(numbers or range(len(levels)), levels, strict=True):
        page = pages[number] if number < len(pages) else None
        if page is None or not _shows(page, level, padded=vendor is not None):
            found.append(f"level {number} is not one of the file's tiled pages")
        elif isinstance(page.coded, str) or vendor is None:
            found.append(page.coded)
        else:
            found.append(page.coded.cropped(level.width, level.height))
    return found


def _shows(page: StoredPage, level: Level, *, padded: bool) -> bool:
    over = page.width - level.width, page.height - level.height
    # less than two storage tiles of padding: one of the page's own, and one of a level 0 that is padded, too
    return over == (0, 0) or (padded and all(0 <= o < 2 * side for o, side in zip(over, page.tile_px, strict=True)))


@dataclass(frozen=True, eq=False)
class StoredPage:
    """One page of a TIFF that is a pyramid level.

    Attributes
    ----------
    width, height : int
        The image, pixels.
    tile_px : (int, int)
        Width and height of a storage tile, pixels.
    absent : bool [rows, columns]
        Storage tiles that the page leaves out: length 0. Of an Aperio slide also those that OpenSlide takes from the
        next finer level because that level leaves out a part of them ("sometimes corrupt", it says).
    coded : StorageGrid or str
        Its storage tiles, or why they cannot be read one by one.
    photometric : int
        Its colour tag.
    stated : frozenset of int
        What JPEG streams of it state themselves (see jpeg_header.py), by a sample of them.
    directory : int
        Its number in the chain of directories.
    """

    width: int
    height: int
    tile_px: tuple[int, int]
    absent: NDArray[np.bool_]
    coded: StorageGrid | str
    photometric: int
    stated: frozenset[int]
    directory: int


def read_pages(path: Path, vendor: str | None = None) -> tuple[StoredPage, ...]:
    """The pages that are pyramid levels, numbered as OpenSlide numbers its levels; for a `vendor` every tiled page.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories are damaged.
    """
    key = file_key(path)
    with refusing_damage(path):
        return _read_pages(path, vendor, key)


@lru_cache(maxsize=4)
def _read_pages(path: Path, vendor: str | None, key: tuple[int, ...]) -> tuple[StoredPage, ...]:
    """Cached by the file's identity: the route's choice and the tiler ask for the same."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        pages = list(tiff_pages(tiff))
        note = pages[0].tags.valueof(IMAGE_DESCRIPTION, "") if pages else ""  # bytes where it is no UTF-8
        aperio = isinstance(note, str | bytes) and note[:6] in ("Aperio", b"Aperio")
        shown = [page for page in pages if not page.subfiletype & MASK]
        found = [_read_page(page, not aperio) for page in _pyramid(shown, every=aperio or vendor is not None)]
    del tiff, pages, shown
    gc.collect(1)  # the pages refer to each other, and hold every offset as an object
    release_memory()
    return tuple(_propagate(found) if aperio else found)


def read_sub_pages(path: Path) -> tuple[StoredPage, ...]:
    """The first page of a TIFF and the pages inside of it (SubIFDs), finest first; nothing where there are none.

    Raises
    ------
    SlideError
        The file is not a TIFF, cannot be read, or its directories are damaged.
    """
    import tifffile

    with refusing_damage(path), tifffile.TiffFile(path) as tiff:
        first = next(tiff_pages(tiff), None)
        inside = sub_pages(first) if first is not None and first.is_tiled else []
        pages = [first, *(page for page in inside if page.is_tiled)] if inside else []
        return tuple(_read_page(page, True) for page in sorted(pages, key=lambda page: -page.imagewidth))


def sub_pages(page: Any) -> list[Any]:
    """The pages inside of a page (SubIFDs), as they come; none where there are none, or too many.

    Raises
    ------
    ValueError
        One of them is not where it should be.
    """
    count = len(page.subifds or ())
    try:
        return [page.pages[i].aspage() for i in range(count if count <= MAX_SUB_PAGES else 0)]
    except Exception as error:  # whatever tifffile meets there
        raise ValueError("a page inside of another is not where it should be") from error


def jpeg_colours(path: Path) -> list[tuple[int, frozenset[int]]]:
    """(colour tag, what streams state) of every JPEG page of a TIFF, tiled or not; none where it cannot be walked."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff_pages(tiff) if page.compression == JPEG]
            return [(int(page.photometric), _stated(page)) for page in pages if page.samplesperpixel == 3]
    except Exception:
        return []  # no TIFF, or a damaged one: the reader that opened it says what is wrong


def _pyramid(pages: list, *, every: bool) -> list:  # type: ignore[type-arg]
    """The pages that are pyramid levels, finest first, by OpenSlide's own rules: size alone can name the wrong page.

    Of an Aperio or Philips slide every tiled page, as they come; of any other TIFF the first one and those that say
    that they are reduced, by falling width, equal ones as they come.
    """
    tiled = [page for page in pages if page.is_tiled]
    if every:
        return tiled
    return sorted((page for page in tiled if page is pages[0] or page.is_reduced), key=lambda page: -page.imagewidth)


def _read_page(page, absent_is_glass: bool) -> StoredPage:  # type: ignore[no-untyped-def]
    reason = _why_not(page)
    tile_px = max(1, page.tilewidth), max(1, page.tilelength)
    shape = -(-page.imagelength // tile_px[1]), -(-page.imagewidth // tile_px[0])
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    sizes = np.array(page.databytecounts, np.int64)
    whole = sizes.size == shape[0] * shape[1] * planes
    return StoredPage(
        page.imagewidth,
        page.imagelength,
        tile_px,
        np.asarray((sizes <= 0).reshape(planes, *shape).any(0)) if whole else np.zeros((1, 1), bool),
        reason if reason is not None else _describe(page, absent_is_glass),
        int(page.photometric),
        _stated(page),
        int(page.index),
    )


def _stated(page) -> frozenset[int]:  # type: ignore[no-untyped-def]
    """What sampled streams of a JPEG page state of their colours; both where one of them contradicts itself."""
    if page.compression != JPEG:
        return frozenset()
    offsets, sizes = page.dataoffsets, page.databytecounts
    present = np.flatnonzero(np.array(sizes[: len(offsets)], np.int64) > 0)
    found: frozenset[int] = frozenset()
    for at in sorted({round(i * (len(present) - 1) / (SAMPLES - 1)) for i in range(SAMPLES)} if present.size else ()):
        page.parent.filehandle.seek(offsets[present[at]])
        said = stated_colours(page.parent.filehandle.read(min(sizes[present[at]], HEADER_BYTES)))
        if len(said) > 1:
            return said
        # streams that differ are read each as it says; the tag is wrong for one of them
        found = said if said and said != {int(page.photometric)} else found or said
    return found


def _propagate(pages: list[StoredPage]) -> list[StoredPage]:
    """Mark what OpenSlide marks: a storage tile over one that the next finer level leaves out is left out, too."""
    marked = pages[:1]
    for page in pages[1:]:
        finer = marked[-1].absent
        absent = page.absent.copy()
        # OpenSlide's own arithmetic, which rounds the ratio of the two grids
        step = [max(1, round(a / b)) for a, b in zip(finer.shape, absent.shape, strict=True)]
        rows, columns = np.nonzero(finer)
        rows, columns = rows // step[0], columns // step[1]
        inside = (rows < absent.shape[0]) & (columns < absent.shape[1])
        absent[rows[inside], columns[inside]] = True
        coded = page.coded
        if isinstance(coded, StorageGrid):
            coded = replace(coded, sizes=np.where(absent, 0, coded.sizes))
        marked.append(replace(page, absent=absent, coded=coded))
    return marked


def _why_not(page) -> str | None:  # type: ignore[no-untyped-def]
    coding = _CODINGS.get(int(page.compression))
    if coding is None:
        return f"its tiles are coded as {_coding_name(page)}"
    if page.samplesperpixel != 3 or page.bitspersample != 8 or page.planarconfig != 1:
        return "its pixels are not 8-bit RGB"
    # what compresses bytes may hold YCbCr at less than full size; what a picture's coding holds it says itself
    allowed = (RGB,) if coding.is_plain else (RGB, YCBCR)
    if _colours(page) not in allowed:
        return f"its photometric tag is {page.photometric}, neither RGB nor YCbCr"
    if coding.is_plain and page.predictor not in (1, _DIFFERENCES):
        return f"its pixels are kept by predictor {page.predictor}"
    if coding.why_not is not None:
        return coding.why_not
    if not (MIN_TILE_SIDE <= page.tilewidth <= MAX_TILE_SIDE and MIN_TILE_SIDE <= page.tilelength <= MAX_TILE_SIDE):
        return f"its tiles are {page.tilewidth} x {page.tilelength} px"
    columns, rows = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
    if not len(page.dataoffsets) == len(page.databytecounts) == columns * rows:
        return f"it lists {len(page.dataoffsets)} tiles where its size needs {columns * rows}"
    return None


def _coding_name(page) -> str:  # type: ignore[no-untyped-def]
    return str(getattr(page.compression, "name", page.compression))


def _colours(page) -> int:  # type: ignore[no-untyped-def]
    return _APERIO_COLOURS.get(int(page.compression), int(page.photometric))


def _describe(page, absent_is_glass: bool) -> StorageGrid:  # type: ignore[no-untyped-def]
    width, height, tile_w, tile_h = page.imagewidth, page.imagelength, page.tilewidth, page.tilelength
    shape = (-(-height // tile_h), -(-width // tile_w))
    offsets = np.array(page.dataoffsets, np.int64).reshape(shape)
    sizes = np.array(page.databytecounts, np.int64).reshape(shape)
    return StorageGrid(
        width=width,
        height=height,
        tile_width=tile_w,
        tile_height=tile_h,
        photometric=_colours(page),
        tables=bytes(page.jpegtables or b""),
        offsets=np.maximum(offsets, 0),
        sizes=np.maximum(sizes, 0),
        absent_is_glass=absent_is_glass,
        coding=_CODINGS[int(page.compression)],
        has_differences=page.predictor == _DIFFERENCES,
    )
