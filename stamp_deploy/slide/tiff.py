"""What the compiled tiler needs to know of a TIFF file: where each level's storage tiles lie.

tifffile walks the directories, in Python: no C code of ours parses a file's structure.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import SlideError
from ..memory import release_memory
from .backends import Level

JPEG, RGB, YCBCR = 7, 2, 6
DCT_SCALES = (1, 2, 4, 8)
MAX_TILE_SIDE = 16384


@dataclass(frozen=True, eq=False)
class TiffLevel:
    """One directory of JPEG storage tiles.

    Attributes
    ----------
    width, height : int
        The image, pixels.
    tile_width, tile_height : int
        A storage tile, pixels.
    photometric : int
        2 (RGB) or 6 (YCbCr): how the streams code colour.
    tables : bytes
        JPEG tables shared by all streams; empty where each has its own.
    offsets, sizes : int64 [rows, columns]
        Where each storage tile lies in the file, bytes; size 0 is a tile that is left out.
    scales : tuple of int
        Denominators of the decoding scales that divide a storage tile.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    photometric: int
    tables: bytes
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    scales: tuple[int, ...]


def read_levels(path: Path, levels: Sequence[Level], numbers: Sequence[int] | None = None) -> list[TiffLevel | str]:
    """The directory of each pyramid level, or why the compiled tiler cannot read that level.

    Parameters
    ----------
    path : Path
    levels : sequence of Level
    numbers : sequence of int, optional
        The number of each in the file, as OpenSlide counts; their index by default.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories are damaged.
    """
    try:
        stat = path.stat()
        key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return list(_read_levels(path, tuple(levels), tuple(numbers or range(len(levels))), key))
    except OSError as error:
        raise SlideError(
            f"cannot be read: {error.strerror or 'input/output error'}",
            path=path,
            remedy="check the disk and the rights",
        ) from error


@lru_cache(maxsize=4)
def _read_levels(
    path: Path, levels: tuple[Level, ...], numbers: tuple[int, ...], key: tuple[int, ...]
) -> tuple[TiffLevel | str, ...]:
    """Cached by the file's identity: the route's choice and the tiler ask for the same."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            pages = _pyramid([page for page in tiff.pages if isinstance(page, tifffile.TiffPage)])
            found = tuple(_read_level(pages, number, level) for number, level in zip(numbers, levels, strict=True))
        del tiff, pages
        gc.collect(1)  # the pages refer to each other, and hold every offset as an object
        release_memory()
        return found
    except OSError:
        raise
    except Exception as error:
        # what tifffile raises on damaged directories is anything: fuzzing met TypeError, AttributeError, struct.error
        raise SlideError(
            f"its TIFF directories cannot be read: {' '.join(str(error).split())}",
            path=path,
            remedy="copy or scan the slide again",
        ) from error


def why_not_tiler(path: Path, levels: Sequence[Level], numbers: Sequence[int]) -> str | None:
    """Why the compiled tiler does not read this file; None where it does (it needs level 0 at least)."""
    try:
        first = read_levels(path, levels, numbers)[0]
    except SlideError as error:
        return error.cause
    return first if isinstance(first, str) else None


def _pyramid(pages: list) -> list:  # type: ignore[type-arg]
    """The pages that are pyramid levels, finest first, by OpenSlide's own rules: size alone can name the wrong page.

    Of an Aperio slide the tiled ones, as they come; of any other TIFF the first one and those that say that they are
    reduced, by falling width, equal ones as they come.
    """
    tiled = [page for page in pages if page.is_tiled]
    if pages and (pages[0].description or "").startswith("Aperio"):
        return tiled
    return sorted((page for page in tiled if page is pages[0] or page.is_reduced), key=lambda page: -page.imagewidth)


def _read_level(pages: list, number: int, level: Level) -> TiffLevel | str:  # type: ignore[type-arg]
    page = pages[number] if number < len(pages) else None
    if page is None or (page.imagewidth, page.imagelength) != (level.width, level.height):
        return f"level {number} is not one of the file's tiled pages"
    reason = _why_not(page)
    return reason if reason is not None else _describe(page)


def _why_not(page) -> str | None:  # type: ignore[no-untyped-def]
    if page.compression != JPEG:
        return f"its tiles are coded as {getattr(page.compression, 'name', page.compression)}, not as JPEG"
    if page.samplesperpixel != 3 or page.bitspersample != 8 or page.planarconfig != 1:
        return "its pixels are not 8-bit RGB"
    if page.photometric not in (RGB, YCBCR):
        return f"its photometric tag is {page.photometric}, neither RGB nor YCbCr"
    if not (8 <= page.tilewidth <= MAX_TILE_SIDE and 8 <= page.tilelength <= MAX_TILE_SIDE):
        return f"its tiles are {page.tilewidth} x {page.tilelength} px"
    columns, rows = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
    if not len(page.dataoffsets) == len(page.databytecounts) == columns * rows:
        return f"it lists {len(page.dataoffsets)} tiles where its size needs {columns * rows}"
    return None


def _describe(page) -> TiffLevel:  # type: ignore[no-untyped-def]
    width, height, tile_w, tile_h = page.imagewidth, page.imagelength, page.tilewidth, page.tilelength
    shape = (-(-height // tile_h), -(-width // tile_w))
    offsets = np.array(page.dataoffsets, np.int64).reshape(shape)
    sizes = np.array(page.databytecounts, np.int64).reshape(shape)
    scales = tuple(s for s in DCT_SCALES if tile_w % s == 0 and tile_h % s == 0)
    missing = (offsets <= 0) | (sizes <= 0)
    return TiffLevel(
        width=width,
        height=height,
        tile_width=tile_w,
        tile_height=tile_h,
        photometric=int(page.photometric),
        tables=bytes(page.jpegtables or b""),
        offsets=np.where(missing, 0, offsets),
        sizes=np.where(missing, 0, sizes),
        scales=scales,
    )
