"""What a file leaves out, in numbers: tiles touched, share of the slide, length of the edge along tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stamp_deploy.absence import Absence, leave_out
from stamp_deploy.grid import Grid
from stamp_deploy.slide.left_out import LeftOut
from stamp_deploy.tissue import TissueMask, TissueRule


def area(*cells: tuple[int, int], shape: tuple[int, int] = (4, 6), w: float = 100, h: float = 50) -> LeftOut:
    """Cells (row, column) that a file does not hold, each w x h level-0 pixels."""
    held = np.zeros(shape, bool)
    for cell in cells:
        held[cell] = True
    return LeftOut(held, w, h)


def pixels(found: LeftOut) -> NDArray[np.bool_]:
    """The same, level-0 pixel by pixel."""
    return np.kron(found.cells, np.ones((int(found.cell_h), int(found.cell_w)), bool)).astype(bool)


@pytest.mark.parametrize("span", [(1, 1), (30, 70), (100, 50), (101, 51), (250, 130)])
def test_tiles_are_touched_where_they_share_a_pixel(span: tuple[int, int]) -> None:
    found = area((0, 0), (1, 3), (2, 3), (3, 5))
    level0 = pixels(found)
    x, y = np.meshgrid(np.arange(0, 600, 25), np.arange(0, 200, 25))
    coords = np.stack([x.ravel(), y.ravel()], axis=1)
    expected = [level0[b : b + span[1], a : a + span[0]].any() for a, b in coords]
    np.testing.assert_array_equal(found.touched(coords, *span), expected)


def test_a_tile_that_only_meets_the_edge_is_not_touched() -> None:
    """Spans are rarely whole numbers: a millionth of a cell is no overlap."""
    found = area((1, 3))
    coords = np.array([[200, 50], [400, 50], [300, 0], [300, 100]])
    assert not found.touched(coords, 100, 50).any()
    assert not found.touched(coords, 100 + 1e-6, 50 + 1e-6).any()
    assert found.touched(coords, 101, 51).tolist() == [True, False, True, False]
    assert found.touched(coords - 1, 100, 50).tolist() == [False, True, False, True]


def test_the_picture_of_what_is_absent() -> None:
    found = area((1, 3), (3, 0))
    np.testing.assert_array_equal(found.raster((200, 600), 1, 1), pixels(found))
    np.testing.assert_array_equal(found.raster((20, 30), 20, 10), pixels(found)[5::10, 10::20])
    rough = found.raster((8, 14), 42, 24)  # pixels that no cell holds whole: the one in their middle decides
    np.testing.assert_array_equal(rough, pixels(found)[12::24, 21::42][:8, :14])
    beyond = found.raster((22, 34), 20, 10)  # a little larger than the cells
    np.testing.assert_array_equal(beyond[:20, :30], pixels(found)[5::10, 10::20])
    assert not beyond[20:].any()
    assert not beyond[:, 30:].any()


def test_rectangles_cover_the_same_pixels() -> None:
    found = area((0, 0), (1, 0), (1, 1), (1, 2), (1, 4), (3, 5))
    drawn = np.zeros((200, 600), int)
    rectangles = found.rectangles()
    for x, y, w, h in rectangles:
        drawn[y : y + h, x : x + w] += 1
    np.testing.assert_array_equal(drawn, pixels(found))
    assert len(rectangles) == 4
    assert area().rectangles() == []


def test_cells_of_broken_size_leave_no_gap() -> None:
    found = area((0, 0), (0, 1), (1, 0), (1, 1), shape=(2, 3), w=33.4, h=10.7)
    assert found.rectangles() == [(0, 0, 66, 10), (0, 10, 66, 11)]
    assert found.share == pytest.approx(4 / 6)


@dataclass
class Holed:
    left_out: LeftOut | None
    mpp_xy: tuple[float, float] = (0.5, 0.4)


GRID = Grid(600, 200, 0.5, 0.4, 0.5, 40)  # spans 40 x 50


def tissue(rows: slice = slice(None), columns: slice = slice(None)) -> TissueMask:
    """Of 6 x 4 level-0 pixels a mask pixel."""
    mask = np.zeros((50, 100), bool)
    mask[rows, columns] = True
    return TissueMask(mask, 6.0, 4.0, TissueRule(), 0.1, float(mask.mean()))


def test_nothing_left_out_changes_nothing() -> None:
    mask = tissue()
    same, absence = leave_out(Holed(None), GRID, mask)  # type: ignore[arg-type]
    assert same is mask
    assert absence == Absence()
    assert absence.notes == ()


def test_the_mask_loses_what_is_absent_and_all_is_counted() -> None:
    """The right half is absent, tissue is everywhere: the edge is as long as the slide is high."""
    half = area(*((r, c) for r in range(4) for c in (3, 4, 5)))
    less, absence = leave_out(Holed(half), GRID, tissue())  # type: ignore[arg-type]
    assert less is not None
    assert less.mask[:, :50].all()
    assert not less.mask[:, 50:].any()
    assert less.fraction == 0.5
    assert absence.share == 0.5
    assert (GRID.columns, GRID.rows) == (15, 4)
    assert absence.grid_tiles == 60
    assert absence.tiles == 8 * 4  # the tile from x = 280 on reaches into it
    # 50 mask pixels of 6 x 0.5 by 4 x 0.4 um, the mean of the two
    assert absence.edge_um == pytest.approx(50 * (6 * 0.5 + 4 * 0.4) / 2)


def test_only_the_edge_along_tissue_counts() -> None:
    half = area(*((r, c) for r in range(4) for c in (3, 4, 5)))
    absence = leave_out(Holed(half), GRID, tissue(rows=slice(10, 30)))[1]  # type: ignore[arg-type]
    assert absence.edge_um == pytest.approx(20 * 2.3)
    absence = leave_out(Holed(half), GRID, tissue(columns=slice(0, 48)))[1]  # type: ignore[arg-type]
    assert absence.edge_um == 0
    _, absence = leave_out(Holed(half), GRID, None)  # type: ignore[arg-type]
    assert (absence.tiles, absence.edge_um) == (32, 0)


@pytest.mark.parametrize(
    ("changes", "cuts", "much"),
    [
        ({}, False, False),
        ({"edge_um": 99.9}, False, False),
        ({"edge_um": 100.0}, True, False),
        ({"edge_um": 2340.0, "share": 0.5}, True, False),
        ({"share": 0.249}, False, False),
        ({"share": 0.25}, False, True),
    ],
)
def test_an_edge_along_tissue_and_a_large_share_are_told(changes: dict[str, Any], cuts: bool, much: bool) -> None:
    (note,) = Absence(**{"tiles": 3, "grid_tiles": 40, "share": 0.1, "edge_um": 0.0, **changes}).notes
    assert ("may be incomplete" in note, "look at the overview" in note) == (cuts, much)
    assert "3 of 40 tiles" in note
    assert f"{changes.get('share', 0.1):.1%} of the slide" in note
    if changes.get("edge_um") == 2340.0:
        assert "over 2.3 mm" in note


def test_absence_that_no_tile_touches_is_not_told() -> None:
    assert Absence(tiles=0, grid_tiles=40, share=0.5, edge_um=500).notes == ()


def test_each_tile_of_a_large_grid_is_looked_at_once() -> None:
    grid = Grid(6000, 4000, 0.5, 0.5, 0.5, 50)
    found = LeftOut(np.ones((4, 6), bool), 1000, 1000)
    _, absence = leave_out(Holed(found), grid, None)  # type: ignore[arg-type]
    assert (absence.tiles, absence.grid_tiles) == (120 * 80, 120 * 80)


def test_tiles_that_overlap_are_counted_by_what_they_cover() -> None:
    """One cell, x 300 to 400 and y 50 to 100; tiles of 40 x 50, 20 and 25 apart."""
    grid = Grid(600, 200, 0.5, 0.4, 0.5, 40, 20)
    _, absence = leave_out(Holed(area((1, 3))), grid, None)  # type: ignore[arg-type]
    assert absence.tiles == 6 * 3
