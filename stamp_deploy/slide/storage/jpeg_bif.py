"""The index of a Ventana BIF whose storage tiles do not overlap, and a reader of those that OpenSlide refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..backends import Backend, Level
from ..backends.by_mosaic import MosaicReader
from ..backends.by_storage import StorageReader
from ..tiff import read_pages
from .bif_layout import BifLayout, read_bif
from .index import StorageGrid, StorageIndex, any_overlap, one_grid_per_level, only_jpeg


def jpeg_bif(path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]) -> StorageIndex | str:
    """See providers.py.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories or its records are damaged.
    """
    layout = read_bif(path)
    if isinstance(layout, str):
        return layout
    if layout.overlaps:
        by = f"{layout.tile_width - layout.advance_x:.3g} x {layout.tile_height - layout.advance_y:.3g}"
        return f"its storage tiles overlap by {by} px"
    found = _grids(path, layout)
    if max(numbers) >= len(found):
        return "its levels are not those of its records"
    grids = [_level(found[number], layout, number) for number in numbers]
    stated = layout.levels
    if [(stated[n].width, stated[n].height) for n in numbers] != [(level.width, level.height) for level in levels]:
        return "its levels are not those of its records"
    return StorageIndex((path,), tuple(grids))


def open_bif(path: Path) -> StorageReader | MosaicReader | str:
    """A reader of all its levels without OpenSlide, or why there is none.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories or its records are damaged.
    """
    layout = read_bif(path)
    if isinstance(layout, str):
        return layout
    pages = _grids(path, layout)
    for page in pages:
        if isinstance(page, str):
            return page
    levels, properties = layout.levels, layout.properties
    grids = [_level(page, layout, number) for number, page in enumerate(pages)]
    if not layout.overlaps and not any(isinstance(grid, str) for grid in grids):
        return StorageReader(StorageIndex((path,), tuple(grids)), levels, "ventana", properties)
    return MosaicReader(StorageReader(one_grid_per_level(path, pages), levels, "ventana", properties), layout)


def stored_pages(path: Path) -> StorageIndex:
    """The page of each level as it is stored, whether or not its storage tiles overlap; none where it has no record.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories or its records are damaged.
    """
    layout = read_bif(path)
    return one_grid_per_level(path, [] if isinstance(layout, str) else _grids(path, layout))


def _grids(path: Path, layout: BifLayout) -> list[StorageGrid | str]:
    """The page of each level as it is stored."""
    pages = {page.directory: page for page in read_pages(path, "ventana")}
    return [
        only_jpeg(pages[directory].coded) if directory in pages else f"level {number} is not a tiled page"
        for number, (directory, _) in enumerate(layout.pages)
    ]


def _level(page: StorageGrid | str, layout: BifLayout, number: int) -> tuple[StorageGrid, ...] | str:
    """The part of a page that shows each area.

    A storage tile of a coarser level holds several of level 0. Areas that begin inside of one, or on a part of a pixel,
    are left to another level.
    """
    if isinstance(page, str):
        return page
    scale = round(layout.pages[number][1])
    if scale != layout.pages[number][1]:
        return f"level {number} is reduced by {layout.pages[number][1]:.4g}, no whole number"
    grids = []
    for area in layout.areas:
        if area.column % scale or area.row % scale or area.x % scale or area.y % scale:
            return f"areas of level {number} do not begin with a storage tile, or on a whole pixel"
        across, down = -(-area.across // scale), -(-area.down // scale)
        column, row = area.column // scale, area.row // scale
        if page.offsets.shape[0] < row + down or page.offsets.shape[1] < column + across:
            return f"level {number} is smaller than its scanned areas"
        part = slice(row, row + down), slice(column, column + across)
        whole = replace(
            page,
            width=across * layout.tile_width,
            height=down * layout.tile_height,
            offsets=page.offsets[part].copy(),
            sizes=page.sizes[part].copy(),
            files=page.files[part].copy(),
            origin_x=area.x // scale,
            origin_y=area.y // scale,
        )
        width, height = (-(-side // scale) for side in (area.across * page.tile_width, area.down * page.tile_height))
        grids.append(whole.cropped(width, height))
    if any_overlap(grids):
        return "its scanned areas overlap"
    return tuple(grids)
