"""Whether the first page of a plain TIFF is the slide at full resolution.

Its microns per pixel and its description count for the whole file, and readers take it for the full resolution; it may
be a thumbnail all the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import SlideError
from .backends import Backend, Level, levels_of_sizes
from .pyramid import same_shape
from .tiff import sub_pages
from .tiff_pages import tiff_pages

_PLAIN = ("generic-tiff", "generic")
"""TIFF of no scanner's own format, by the names of OpenSlide and of the reader of plain images."""
_QPI_ROOT, _QPI_TYPE = "PerkinElmer-QPI-ImageDescription", re.compile(r"<ImageType>\s*(\w{1,40})\s*</ImageType>")
_QPI_FULL, _QPI_OTHERS = "FullResolution", ("ReducedResolution", "Thumbnail", "Overview", "Label")


def check_first_page(path: Path, backend: Backend) -> tuple[str, ...]:
    """Refuse a TIFF whose first page is not the full resolution; notes on what is not read.

    Raises
    ------
    SlideError
        Another page, or one inside of the first, is larger and of the same shape, or the first says what else it is.
    """
    if backend.vendor not in _PLAIN:
        return ()
    _check_said(backend.properties.get("openslide.comment", ""), path)
    sizes = _sizes_in_colour(path)
    first, *others = levels_of_sizes(sizes or [(1, 1)])
    larger = next((page for page in others if _is_larger(page, first)), None)
    if larger is not None:
        raise SlideError(
            f"its first page of {first.width} x {first.height} px is smaller than another of {larger.width} x "
            f"{larger.height}: what the first says of its scale is not the slide's",
            path=path,
            remedy="export the slide again with its full resolution first",
        )
    alike = sizes.count(sizes[0]) if sizes else 0
    return (f"it holds {alike} pictures of its full size: the first is read",) if alike > 1 else ()


def _is_larger(page: Level, first: Level) -> bool:
    return page.width > first.width and page.height > first.height and same_shape(page, first)


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


def _sizes_in_colour(path: Path) -> Sequence[tuple[int, int]]:
    """Sizes of the pages, and of those inside of the first, that hold a picture in colour; the first page's in front.

    None of a file that is no TIFF.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            first, *others = list(tiff_pages(tiff))
            others = [page for page in [*others, *sub_pages(first)] if page.samplesperpixel >= 3]
            return [(page.imagewidth, page.imagelength) for page in (first, *others)]
    except Exception:
        return []  # no TIFF, or one that tifffile cannot walk: the reader that opened it says what is wrong
