"""The index of a Leica SCN: areas of a glass that were scanned apart, each a grid at its origin.

The first page's description says in XML where each area lies and which page of the file shows it at which size. Level 0
is the whole glass, as OpenSlide has it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ...errors import COPY_AGAIN, SlideError
from ..backends import Backend, Level
from ..ome import MAX_CHARS
from ..tiff import StoredPage, read_pages
from ..tiff_pages import refusing_damage, tiff_pages
from ..tiff_tags import read_description
from .index import StorageGrid, StorageIndex, any_overlap, only_jpeg

NAMESPACE = "{http://www.leica-microsystems.com/scn/2010/10/01}"
BRIGHTFIELD = "brightfield"
MAX_AREAS = 32
"""Each is read by a reader of its own."""
PROPORTION = 0.01
"""What an area's sides may differ from its pages', and reach beyond the glass, as a share: sizes are rounded."""
_ROUNDING = 1e-6
"""Pixels: an origin that is meant to be whole."""


@dataclass(frozen=True)
class Area:
    """A scanned area: its place and size on the glass, nm, and its pages (directory, width, height), finest first."""

    offset_x: int
    offset_y: int
    width_nm: int
    height_nm: int
    pages: tuple[tuple[int, int, int], ...]


def jpeg_scn(path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]) -> StorageIndex | str:
    """See providers.py.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories or its description are damaged.
    """
    areas = read_areas(read_description(path), path)
    if not 0 < len(areas) <= MAX_AREAS:
        return f"it has {len(areas)} scanned areas"
    if len({len(area.pages) for area in areas}) > 1 or max(numbers) >= len(areas[0].pages):
        return "its areas differ in their levels"
    directories = {page.directory: page for page in read_pages(path, "leica")}
    return StorageIndex((path,), tuple(_level(areas, number, directories) for number in numbers))


def _level(areas: list[Area], number: int, directories: Mapping[int, StoredPage]) -> tuple[StorageGrid, ...] | str:
    nm_per_px = min(area.width_nm / area.pages[number][1] for area in areas)
    grids: list[StorageGrid] = []
    for area in areas:
        directory, width, height = area.pages[number]
        page = directories.get(directory)
        if page is None or (page.width, page.height) != (width, height):
            return f"level {number} is not one of the file's tiled pages"
        grid = only_jpeg(page.coded)
        if isinstance(grid, str):
            return grid
        # OpenSlide cuts the part of a pixel off, which moves the area to the next whole one
        x, y = (math.ceil(offset / nm_per_px - _ROUNDING) for offset in (area.offset_x, area.offset_y))
        grids.append(replace(grid, origin_x=x, origin_y=y))
    if any_overlap(grids):
        return "its scanned areas overlap"
    return tuple(grids)


def read_areas(description: str, path: Path) -> list[Area]:
    """The brightfield areas that a description in XML names, without the picture of the whole glass.

    Raises
    ------
    SlideError
        It is damaged.
    """
    return _parse(description, path)[1]


def _parse(description: str, path: Path) -> tuple[tuple[int, ...], list[Area], Counter[int]]:
    """The width and height of the glass, nm; the areas of `read_areas`; how often each page is named."""
    try:
        if len(description) > MAX_CHARS:
            raise ValueError("too long")
        collection = _child(fromstring(description.encode("utf-8", "replace"), forbid_dtd=True), "collection")
        glass = _numbers(collection, "sizeX", "sizeY")
        found = [_area(image, glass) for image in collection.findall(f"{NAMESPACE}image")]
        named = Counter(_numbers(dimension, "ifd")[0] for dimension in collection.iter(f"{NAMESPACE}dimension"))
    except (ParseError, DefusedXmlException, ValueError, TypeError) as error:
        raise SlideError("its description of the scanned areas is damaged", path=path, remedy=COPY_AGAIN) from error
    return glass, [area for area in found if area is not None], named


def check_scn(path: Path) -> None:
    """Refuse an SCN that contradicts itself: OpenSlide would show an area in another size, or another area's pixels.

    Raises
    ------
    SlideError
        An area names a page that the file lacks or that another picture names, too, or states another size for it, or
        sides of its own that are not proportional to the page's, or lies beyond the glass; or the description is
        damaged.
    """
    glass, areas, named = _parse(read_description(path), path)
    with refusing_damage(path):
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            sizes = {page.index: (page.imagewidth, page.imagelength) for page in tiff_pages(tiff)}
    for number, area in enumerate(areas, 1):
        why = _contradiction(area, sizes, glass, named)
        if why:
            raise SlideError(
                f"its description contradicts the file: {why} (scanned area {number})",
                path=path,
                remedy=COPY_AGAIN,
            )


def _contradiction(
    area: Area, sizes: Mapping[int, tuple[int, int]], glass: tuple[int, ...], named: Counter[int]
) -> str:
    """What is wrong about an area; empty where nothing is."""
    for directory, width, height in area.pages:
        if directory not in sizes:
            return f"there is no page {directory}"
        if sizes[directory] != (width, height):
            stored = " x ".join(map(str, sizes[directory]))
            return f"page {directory} has {stored} px, not {width} x {height}"
        proportional = width * area.height_nm / area.width_nm
        if abs(height - proportional) > max(2, PROPORTION * height):
            return f"page {directory} is no picture of an area of {area.width_nm} x {area.height_nm} nm"
    if len({page[0] for page in area.pages}) < len(area.pages):
        return "two of its levels are one page"
    for directory, _, _ in area.pages:
        if named[directory] > 1:
            return f"another picture is page {directory}, too"
    corner = area.offset_x + area.width_nm, area.offset_y + area.height_nm
    beyond = [side * (1 + PROPORTION) for side in glass]
    if min(area.offset_x, area.offset_y) < 0 or corner[0] > beyond[0] or corner[1] > beyond[1]:
        return "it lies beyond the glass"
    return ""


def _area(image: Element, glass: tuple[int, ...]) -> Area | None:
    """One image of the description; None for the picture of the whole glass, and for other light than brightfield."""
    view = _child(image, "view")
    width, height, x, y = _numbers(view, "sizeX", "sizeY", "offsetX", "offsetY")
    light = image.find(f"{NAMESPACE}scanSettings/{NAMESPACE}illuminationSettings/{NAMESPACE}illuminationSource")
    if (x, y, width, height) == (0, 0, *glass) or light is None or (light.text or "").strip() != BRIGHTFIELD:
        return None
    pages = [
        _numbers(dimension, "ifd", "sizeX", "sizeY")
        for dimension in _child(image, "pixels").findall(f"{NAMESPACE}dimension")
        if dimension.get("z", "0") == "0"
    ]
    if not pages or min(width, height) <= 0 or any(min(page[1:]) <= 0 for page in pages):
        raise ValueError("an area has no size")
    pages.sort(key=lambda page: -page[1])
    return Area(x, y, width, height, tuple((a, b, c) for a, b, c in pages))


def _child(parent: Element, name: str) -> Element:
    child = parent.find(f"{NAMESPACE}{name}")
    if child is None:
        raise ValueError(f"no {name}")
    return child


def _numbers(element: Any, *names: str) -> tuple[int, ...]:
    return tuple(int(element.get(name)) for name in names)
