"""The index of a Leica SCN: areas of a glass that were scanned apart, each a grid at its origin.

The first page's description says in XML where each area lies and which page of the file shows it at which size. Level 0
is the whole glass, as OpenSlide has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ...errors import SlideError
from ..backends import Backend, Level
from ..ome import MAX_CHARS
from ..tiff import StoredPage, read_pages
from ..tiff_tags import read_description
from .index import StorageGrid, StorageIndex, any_overlap, only_jpeg

NAMESPACE = "{http://www.leica-microsystems.com/scn/2010/10/01}"
BRIGHTFIELD = "brightfield"
MAX_AREAS = 32
"""Each is read by a reader of its own."""
_ROUNDING = 1e-6
"""Pixels: an origin that is meant to be whole."""


@dataclass(frozen=True)
class Area:
    """A scanned area: its place and size on the glass, nm, and its pages (directory, width, height), finest first."""

    offset_x: int
    offset_y: int
    width_nm: int
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
    try:
        if len(description) > MAX_CHARS:
            raise ValueError("too long")
        root = fromstring(description.encode("utf-8", "replace"), forbid_dtd=True)
        collection = _child(root, "collection")
        glass = _numbers(collection, "sizeX", "sizeY")
        found = [_area(image, glass) for image in collection.findall(f"{NAMESPACE}image")]
    except (ParseError, DefusedXmlException, ValueError, TypeError) as error:
        raise SlideError(
            "its description of the scanned areas is damaged", path=path, remedy="copy or scan the slide again"
        ) from error
    return [area for area in found if area is not None]


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
    if not pages or width <= 0 or any(min(page[1:]) <= 0 for page in pages):
        raise ValueError("an area has no size")
    pages.sort(key=lambda page: -page[1])
    return Area(x, y, width, tuple((a, b, c) for a, b, c in pages))


def _child(parent: Element, name: str) -> Element:
    child = parent.find(f"{NAMESPACE}{name}")
    if child is None:
        raise ValueError(f"no {name}")
    return child


def _numbers(element: Any, *names: str) -> tuple[int, ...]:
    return tuple(int(element.get(name)) for name in names)
