"""Levels that a TIFF keeps inside of its first page (SubIFDs), as OME-TIFF does: OpenSlide does not look there."""

from __future__ import annotations

from pathlib import Path

from ..backends import levels_of_sizes
from ..backends.by_storage import StorageReader
from ..backends.openslide import OpenSlideBackend
from ..tiff import read_sub_pages
from .index import StorageGrid, one_grid_a_level


def with_sub_pages(path: Path, backend: OpenSlideBackend) -> OpenSlideBackend | StorageReader:
    """A reader of all levels where OpenSlide sees the first of several alone, and all are JPEG; else OpenSlide's.

    Whether they show the slide is looked at like that of any level (see pyramid.py).

    Raises
    ------
    SlideError
        The directories are damaged.
    """
    if backend.vendor != "generic-tiff" or len(backend.levels) > 1:
        return backend
    grids = [page.coded for page in read_sub_pages(path)]
    full = backend.levels[0]
    if len(grids) < 2 or not all(isinstance(grid, StorageGrid) for grid in grids):
        return backend
    shapes = [grid for grid in grids if isinstance(grid, StorageGrid)]
    if (shapes[0].width, shapes[0].height) != (full.width, full.height):
        return backend
    levels = levels_of_sizes((grid.width, grid.height) for grid in shapes)
    backend.close()
    return StorageReader(one_grid_a_level(path, shapes), levels, backend.vendor, backend.properties, name=backend.name)
