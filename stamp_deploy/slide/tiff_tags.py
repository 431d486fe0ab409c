"""What the tags of a TIFF's pages say: descriptions, the scale, the ICC profile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .tiff_pages import IMAGE_DESCRIPTION, refusing_damage, tiff_pages

XML_PACKET, ICC_PROFILE = 700, 34675


@dataclass(frozen=True)
class PageText:
    """A page: its directory, its size and that of its storage tiles (0, 0 where it has none), pixels; what it says."""

    directory: int
    size_px: tuple[int, int]
    tile_px: tuple[int, int]
    description: str
    xml: bytes


def read_texts(path: Path) -> tuple[PageText, ...]:
    """The texts of all pages.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories are damaged.
    """
    import tifffile

    with refusing_damage(path), tifffile.TiffFile(path) as tiff:
        return tuple(
            PageText(
                int(page.index),
                (int(page.imagewidth), int(page.imagelength)),
                (int(page.tilewidth), int(page.tilelength)) if page.is_tiled else (0, 0),
                _as_text(page.tags.valueof(IMAGE_DESCRIPTION, "")),
                bytes(page.tags.valueof(XML_PACKET, b"")),
            )
            for page in tiff_pages(tiff)
        )


def _as_text(note: bytes | str) -> str:
    return note.decode("utf-8", "replace") if isinstance(note, bytes) else str(note)


@dataclass(frozen=True)
class Resolution:
    """What a page of a TIFF says of its scale: pixels per unit (2: inch, 3: centimetre; 0: not stated)."""

    x: float
    y: float
    unit: int
    description: str


def read_resolution(path: Path) -> Resolution:
    """The scale and the description of a TIFF's first page.

    Raises
    ------
    SlideError
        The file is not a TIFF, or cannot be read.
    """
    import tifffile

    with refusing_damage(path), tifffile.TiffFile(path) as tiff:
        return resolution_of(next(tiff_pages(tiff)))


def resolution_of(page: Any) -> Resolution:
    """The scale and the description of a page of tifffile; a unit that is not stated is the inch, as TIFF 6.0 says."""
    tags = page.tags
    x, y = (tags.valueof(name, (0, 1)) for name in ("XResolution", "YResolution"))
    unit = int(tags.valueof("ResolutionUnit", 2)) if x[0] and y[0] and x[1] and y[1] else 0
    return Resolution(x[0] / max(1, x[1]), y[0] / max(1, y[1]), unit, _as_text(tags.valueof(IMAGE_DESCRIPTION, "")))


def read_description(path: Path) -> str:
    """The ImageDescription of a TIFF's first page; empty where there is none, or no page.

    Raises
    ------
    SlideError
        The file is not a TIFF, or cannot be read.
    """
    import tifffile

    with refusing_damage(path), tifffile.TiffFile(path) as tiff:
        page = next(tiff_pages(tiff), None)
        note = page.tags.valueof(IMAGE_DESCRIPTION, "") if page is not None else ""
    return _as_text(note)


def read_icc_tag(path: Path) -> bytes:
    """The ICC profile of a TIFF's first tiled page, or else of its first; empty where there is none, or no TIFF."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            pages = list(tiff_pages(tiff))
            page = next((page for page in pages if page.is_tiled), pages[0])
            return bytes(page.tags.valueof(ICC_PROFILE, b""))
    except Exception:
        return b""  # no TIFF, or a damaged one: the reader that opened it says what is wrong
