"""What a Leica SCN says of its areas, rule by rule at its edge: places, sizes, order, light, and what contradicts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stamp_deploy.slide.storage import jpeg_scn
from stamp_deploy.slide.storage.index import StorageGrid
from stamp_deploy.slide.storage.jpeg_scn import Area, _contradiction, _level, read_areas

GLASS = (40_000, 90_000)
"""nm: a glass that is higher than wide."""
AREA = Area(1000, 2000, 20_000, 10_000, ((1, 400, 200), (2, 100, 50)))
SIZES = {0: (64, 64), 1: (400, 200), 2: (100, 50), 3: (400, 200)}
ONCE: Counter[int] = Counter()
"""No page is named by two areas."""


def view(width: int, height: int, x: int, y: int, *, light: str = "brightfield", pages: str = "") -> str:
    pages = pages or '<dimension sizeX="400" sizeY="200" r="0" ifd="1"/>'
    source = f"<illuminationSettings><illuminationSource>{light}</illuminationSource></illuminationSettings>"
    return (
        f'<image name="i"><pixels>{pages}</pixels><view sizeX="{width}" sizeY="{height}" offsetX="{x}" offsetY="{y}"/>'
        f"<scanSettings>{source if light else ''}</scanSettings></image>"
    )


def areas_of(*images: str) -> list[Area]:
    xml = (
        f'<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection sizeX="{GLASS[0]}" '
        f'sizeY="{GLASS[1]}">{"".join(images)}</collection></scn>'
    )
    return read_areas(xml, Path("a.scn"))


def test_an_area_that_fits_contradicts_nothing() -> None:
    assert _contradiction(AREA, SIZES, GLASS, ONCE) == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pages": ((1, 400, 200), (2, 100, 52))}, "page 2 has 100 x 50 px, not 100 x 52"),
        ({"pages": ((1, 401, 200),)}, "page 1 has 400 x 200 px, not 401 x 200"),
        ({"pages": ((9, 400, 200),)}, "there is no page 9"),
        ({"pages": ((1, 400, 200), (1, 400, 200))}, "two of its levels are one page"),
        ({"pages": ((1, 400, 200), (3, 400, 200))}, ""),
        ({"height_nm": 10_100}, ""), ({"height_nm": 10_101}, "no picture of an area of 20000 x 10101 nm"),
        ({"height_nm": 9_900}, ""), ({"height_nm": 9_899}, "no picture of an area"),
        ({"width_nm": 10_000, "height_nm": 20_000}, "no picture of an area of 10000 x 20000 nm"),
        ({"offset_x": -1}, "beyond the glass"), ({"offset_y": -1}, "beyond the glass"), ({"offset_x": 0}, ""),
        ({"offset_x": 20_400}, ""), ({"offset_x": 20_401}, "beyond the glass"),
        ({"offset_y": 80_000}, ""), ({"offset_y": 80_900}, ""), ({"offset_y": 80_901}, "beyond the glass"),
    ],
    ids=str,
)  # fmt: skip
def test_each_rule_at_its_edge(change: dict[str, Any], why: str) -> None:
    """Sides may differ by a hundredth, and so may the glass: sizes are rounded. Small levels may differ by two rows."""
    area = replace(AREA, **change)
    if "height_nm" in change and "pages" not in change:
        area = replace(area, pages=((1, 400, 200),))
    found = _contradiction(area, SIZES, GLASS, ONCE)
    assert (found == "") == (why == "") and why in found


def test_small_levels_may_be_two_rows_off() -> None:
    for height, right in ((50, True), (52, True), (48, True), (53, False), (47, False)):
        area = replace(AREA, pages=((2, 100, height),))
        assert (_contradiction(area, {2: (100, height)}, GLASS, ONCE) == "") == right


def test_the_picture_of_the_glass_and_other_light_are_no_areas() -> None:
    whole = view(*GLASS, 0, 0)
    area = view(20_000, 10_000, 1000, 2000)
    dark = view(20_000, 10_000, 5000, 2000, light="fluorescence")
    unlit = view(20_000, 10_000, 5000, 2000, light="")
    found = areas_of(whole, area, dark, unlit, view(20_000, 10_000, 3, 4, light=" brightfield\n"))
    assert [(one.offset_x, one.offset_y, one.width_nm, one.height_nm) for one in found] == [
        (1000, 2000, 20_000, 10_000), (3, 4, 20_000, 10_000),
    ]  # fmt: skip


def test_pages_are_those_of_the_sharp_plane_the_finest_first() -> None:
    pages = "".join(
        f'<dimension sizeX="{w}" sizeY="{h}" ifd="{ifd}"{z}/>'
        for w, h, ifd, z in ((100, 50, 2, ""), (400, 200, 5, ' z="1"'), (400, 200, 1, ' z="0"'), (25, 12, 7, ""))
    )
    (area,) = areas_of(view(20_000, 10_000, 0, 0, pages=pages))
    assert area.pages == ((1, 400, 200), (2, 100, 50), (7, 25, 12))


class Page:
    """A page of the file, with the grid of its storage tiles."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.coded = StorageGrid.__new__(StorageGrid)


def test_an_area_lies_at_the_next_whole_pixel_of_the_finest_area(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSlide cuts the part of a pixel off, and takes the smallest pixels for those of the glass."""
    placed: list[Any] = []
    monkeypatch.setattr(jpeg_scn, "only_jpeg", lambda coded: coded)
    monkeypatch.setattr(jpeg_scn, "replace", lambda grid, **place: placed.append(place) or grid)
    monkeypatch.setattr(jpeg_scn, "any_overlap", lambda grids: False)
    directories: Any = {1: Page(400, 200), 2: Page(200, 100)}
    fine = Area(1000, 2001, 20_000, 10_000, ((1, 400, 200),))  # 50 nm a pixel
    coarse = Area(25_049, 50_000, 20_000, 10_000, ((2, 200, 100),))  # 100 nm
    found = _level([fine, coarse], 0, directories)
    assert isinstance(found, tuple) and len(found) == 2
    assert placed == [{"origin_x": 20, "origin_y": 41}, {"origin_x": 501, "origin_y": 1000}]
    monkeypatch.setattr(jpeg_scn, "any_overlap", lambda grids: True)
    assert _level([fine, coarse], 0, directories) == "its scanned areas overlap"
    directories[2] = Page(200, 101)
    assert _level([fine, coarse], 0, directories) == "level 0 is not one of the file's tiled pages"
