"""Tiled TIFF that OpenSlide cannot open, for its coding (JPEG 2000, WebP, JPEG XL) or masks: opened by its pages."""

from __future__ import annotations

from pathlib import Path

from ...codecs import Coding
from ...errors import SlideError
from ..backends import levels_of_sizes
from ..backends.by_storage import StorageReader
from ..tiff import read_pages, read_sub_pages
from ..tiff_tags import read_resolution
from .index import StorageGrid, one_grid_per_level
from .sub_pages import NOTE, holds_masks

VENDOR = "generic-tiff"
_UNITS = {2: "inch", 3: "centimeter"}


def open_codec_tiff(path: Path) -> StorageReader | str:
    """A reader of the slide, or why there is none.

    Levels are the first page and those that say that they are reduced, or those inside of the first page. Whether they
    show the slide is looked at like that of any level (see pyramid.py).
    """
    try:
        pages = read_sub_pages(path)
        pages = pages if len(pages) > 1 else read_pages(path)
        resolution = read_resolution(path)
    except SlideError as error:
        return error.cause
    coded = [page.coded for page in pages]
    if not coded:
        return "it holds no tiled page"
    if isinstance(coded[0], str):
        return coded[0]
    has_masks = holds_masks(path)
    if coded[0].coding is Coding.JPEG and not has_masks:
        return "its tiles are coded as JPEG"
    grids = [grid for grid in coded if isinstance(grid, StorageGrid)]
    properties = {"openslide.vendor": VENDOR}
    if resolution.description:
        properties["openslide.comment"] = properties["tiff.ImageDescription"] = resolution.description
    if resolution.unit in _UNITS:
        properties["tiff.ResolutionUnit"] = _UNITS[resolution.unit]
        properties["tiff.XResolution"], properties["tiff.YResolution"] = f"{resolution.x:.15g}", f"{resolution.y:.15g}"
    levels = levels_of_sizes((grid.width, grid.height) for grid in grids)
    notes = (NOTE,) if has_masks else ()
    return StorageReader(one_grid_per_level(path, grids), levels, VENDOR, properties, notes=notes)
