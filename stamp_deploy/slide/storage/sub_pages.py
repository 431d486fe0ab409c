"""Plain TIFF whose levels OpenSlide does not see as they are.

OME-TIFF keeps levels inside of its first page (SubIFDs), where OpenSlide does not look; a COG may keep a mask behind
each level, which OpenSlide takes for a level, too.
"""

from __future__ import annotations

from pathlib import Path

from ..backends import levels_of_sizes
from ..backends.by_storage import StorageReader
from ..backends.openslide import OpenSlideBackend
from ..tiff import read_pages, read_sub_pages
from ..tiff_pages import MASK, refusing_damage, tiff_pages
from .index import StorageGrid, one_grid_per_level

NOTE = "it holds masks, which are not read"


def holds_masks(path: Path) -> bool:
    """Whether a TIFF has pages that are masks of others.

    Raises
    ------
    SlideError
        The file is not a TIFF, cannot be read, or its directories are damaged.
    """
    import tifffile

    with refusing_damage(path), tifffile.TiffFile(path) as tiff:
        return any(page.subfiletype & MASK for page in tiff_pages(tiff))


def with_sub_pages(path: Path, backend: OpenSlideBackend) -> OpenSlideBackend | StorageReader:
    """A reader of all levels and of nothing else, where OpenSlide has none and all can be read by their storage tiles;
    otherwise OpenSlide's.

    Whether they show the slide is looked at like that of any level (see pyramid.py).

    Raises
    ------
    SlideError
        The directories are damaged.
    """
    if backend.vendor != "generic-tiff":
        return backend
    has_masks = len(backend.levels) > 1 and holds_masks(path)
    if len(backend.levels) > 1 and not has_masks:
        return backend
    grids = [page.coded for page in (read_pages if has_masks else read_sub_pages)(path)]
    full = backend.levels[0]
    if len(grids) < 2 - has_masks or not all(isinstance(grid, StorageGrid) for grid in grids):
        return backend
    shapes = [grid for grid in grids if isinstance(grid, StorageGrid)]
    if (shapes[0].width, shapes[0].height) != (full.width, full.height):
        return backend
    levels = levels_of_sizes((grid.width, grid.height) for grid in shapes)
    backend.close()
    return StorageReader(
        one_grid_per_level(path, shapes),
        levels,
        backend.vendor,
        backend.properties,
        name=backend.name,
        notes=(NOTE,) if has_masks else (),
    )
