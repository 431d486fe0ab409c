"""Whether the first page of a plain TIFF is the slide at full resolution.

Its microns per pixel and its description count for the whole file, and readers take it for the full resolution; it may
be a thumbnail all the same.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SlideError
from ..units import MICRONS_PER_CM, MICRONS_PER_INCH, believable_mpp
from .backends import Backend, levels_of_sizes
from .mpp import MAX_ANISOTROPY
from .pyramid import same_shape
from .tiff import sub_pages
from .tiff_pages import tiff_pages
from .tiff_tags import resolution_of

_PLAIN = ("generic-tiff", "generic")
"""TIFF of no scanner's own format, by the names of OpenSlide and of the reader of plain images."""
_UNITS = {2: MICRONS_PER_INCH, 3: MICRONS_PER_CM}
_QPI_ROOT, _QPI_TYPE = "PerkinElmer-QPI-ImageDescription", re.compile(r"<ImageType>\s*(\w{1,40})\s*</ImageType>")
_QPI_FULL, _QPI_OTHERS = "FullResolution", ("ReducedResolution", "Thumbnail", "Overview", "Label")


@dataclass(frozen=True)
class _Picture:
    """A page in colour: its size, pixels, and the microns per pixel that it states; NaN where it states none."""

    width: int
    height: int
    mpp: float


def check_first_page(path: Path, backend: Backend) -> tuple[str, ...]:
    """Refuse a TIFF whose first page is not the full resolution; notes on what is not read, or does not agree.

    Raises
    ------
    SlideError
        Another page, or one inside of the first, is larger and of the same shape, or the first says what else it is.
    """
    if backend.vendor not in _PLAIN:
        return ()
    _check_said(backend.properties.get("openslide.comment", ""), path)
    pictures = _pictures(path)
    if not pictures:
        return ()
    first = pictures[0]
    full, *levels = levels_of_sizes((picture.width, picture.height) for picture in pictures)
    for level in levels:
        if level.width > full.width and level.height > full.height and same_shape(level, full):
            raise SlideError(
                f"its first page of {full.width} x {full.height} px is smaller than another of {level.width} x "
                f"{level.height}: what the first says of its scale is not the slide's",
                path=path,
                remedy="export the slide again with its full resolution first",
            )
    alike = sum(1 for level in levels if (level.width, level.height) == (full.width, full.height))
    notes = [f"it holds {alike + 1} pictures of its full size: the first is read"] if alike else []
    for picture, level in zip(pictures[1:], levels, strict=True):
        if same_shape(full, level) and _disagrees(first.mpp, picture.mpp, level.downsample_x):
            notes.append(
                f"its page of {level.width} x {level.height} px states {picture.mpp:.4g} um/px, and the first page "
                f"{first.mpp:.4g}: by their sizes it would be {first.mpp * level.downsample_x:.4g}"
            )
    return tuple(notes)


def _disagrees(full: float, stated: float, downsample: float) -> bool:
    """Whether a coarser page states neither its own scale nor a copy of the full resolution's."""
    if not (believable_mpp(full) and math.isfinite(stated)):
        return False
    return not any(1 / MAX_ANISOTROPY <= stated / meant <= MAX_ANISOTROPY for meant in (full, full * downsample))


def _check_said(note: str, path: Path) -> None:
    """Refuse a QPTIFF whose first page says that it is no full resolution."""
    said = _QPI_TYPE.search(note) if _QPI_ROOT in note else None
    if said is None or said.group(1) == _QPI_FULL:
        return
    what = said.group(1) if said.group(1) in _QPI_OTHERS else "other"
    raise SlideError(
        f"its first page says that it is of the type {what}, not {_QPI_FULL}",
        path=path,
        remedy="export the slide again with its full resolution first",
    )


def _pictures(path: Path) -> list[_Picture]:
    """The pages, and those inside of the first, that hold a picture in colour; the first page in front.

    None of a file that is no TIFF.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            first, *others = list(tiff_pages(tiff))
            others = [page for page in [*others, *sub_pages(first)] if page.samplesperpixel >= 3]
            return [_Picture(page.imagewidth, page.imagelength, _mpp(page)) for page in (first, *others)]
    except Exception:
        return []  # no TIFF, or one that tifffile cannot walk: the reader that opened it says what is wrong


def _mpp(page: Any) -> float:
    stated = resolution_of(page)
    return _UNITS.get(stated.unit, math.nan) / stated.x if stated.x else math.nan
