"""Cells that a file leaves out, against the same worked out pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stamp_deploy.errors import SlideError
from stamp_deploy.slide import left_out as module
from stamp_deploy.slide.backends import Level
from stamp_deploy.slide.left_out import LeftOut, find_left_out
from stamp_deploy.slide.storage import StorageGrid, StorageIndex


def cells(rows: int = 5, columns: int = 7, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((rows, columns)) < 0.3


def shares_a_pixel(left: LeftOut, x: float, y: float, w: float, h: float) -> bool:
    return any(
        cell
        and x < (column + 1) * left.cell_w
        and column * left.cell_w < x + w
        and y < (row + 1) * left.cell_h
        and row * left.cell_h < y + h
        for row, line in enumerate(left.cells)
        for column, cell in enumerate(line)
    )


@pytest.mark.parametrize(("cell_w", "cell_h"), [(10.0, 6.0), (8.0, 8.0), (12.5, 7.25)])
@pytest.mark.parametrize(("span_x", "span_y"), [(4.0, 9.0), (20.0, 6.0), (0.5, 0.5), (33.0, 1.0)])
def test_tiles_that_share_a_pixel_with_a_cell(cell_w: float, cell_h: float, span_x: float, span_y: float) -> None:
    for seed in range(3):
        left = LeftOut(cells(seed=seed), cell_w, cell_h)
        x, y = np.meshgrid(np.arange(0, 100, 3), np.arange(0, 60, 2))
        coords = np.stack([x.ravel(), y.ravel()], axis=1)
        expected = [shares_a_pixel(left, a, b, span_x, span_y) for a, b in coords]
        np.testing.assert_array_equal(left.touched(coords, span_x, span_y), expected)
        assert 0 < sum(expected) < len(expected)


def test_a_tile_that_ends_where_a_cell_begins_is_not_touched() -> None:
    """Also where rounding puts the edge a millionth of a cell beside it."""
    only = np.zeros((3, 3), bool)
    only[1, 1] = True
    left = LeftOut(only, 10.0, 20.0)
    for x, y, hit in ((0, 20, False), (20, 20, False), (10, 0, False), (10, 40, False), (10, 20, True)):
        assert left.touched(np.array([[x, y]]), 10.0, 20.0)[0] == hit
        for off in (-1e-9, 1e-9):
            assert left.touched(np.array([[x, y]]), 10.0 + off, 20.0 + off)[0] == hit
    assert left.touched(np.array([[9, 20]]), 1.1, 1)[0] and not left.touched(np.array([[9, 20]]), 0.9, 1)[0]
    assert left.touched(np.array([[12, 19]]), 1, 1.1)[0] and not left.touched(np.array([[12, 19]]), 1, 0.9)[0]


def test_a_tile_beside_the_slide_touches_nothing() -> None:
    left = LeftOut(np.ones((2, 3), bool), 10.0, 20.0)
    for x, y in ((-10, 0), (0, -20), (30, 0), (0, 40), (-90, -90), (90, 90)):
        assert not left.touched(np.array([[x, y]]), 10.0, 20.0)[0]
    for x, y in ((-9, 0), (0, -19), (29, 0), (0, 39), (-9, -19), (29, 39)):
        assert left.touched(np.array([[x, y]]), 10.0, 20.0)[0]


@pytest.mark.parametrize("shape", [(5, 7), (11, 13), (20, 40), (2, 2), (1, 1)])
@pytest.mark.parametrize(("scale_x", "scale_y"), [(7.0, 3.0), (2.0, 9.0), (1.0, 1.0)])
def test_the_picture_of_cells_is_looked_up_at_the_middle_of_each_pixel(
    shape: tuple[int, int], scale_x: float, scale_y: float
) -> None:
    left = LeftOut(cells(), 9.0, 4.0)
    expected = np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            at = int((row + 0.5) * scale_y // 4), int((column + 0.5) * scale_x // 9)
            expected[row, column] = at[0] < 5 and at[1] < 7 and left.cells[at]
    np.testing.assert_array_equal(left.raster(shape, scale_x, scale_y), expected)


def test_runs_of_cells_are_rectangles() -> None:
    left = LeftOut(np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]], bool), 10.5, 4.0)
    assert left.rectangles() == [(0, 0, 21, 4), (31, 0, 11, 4), (10, 8, 32, 4), (0, 12, 10, 4)]
    assert left.share == pytest.approx(7 / 16)
    painted = np.zeros((16, 42), int)
    for x, y, w, h in left.rectangles():
        painted[y : y + h, x : x + w] += 1
    assert painted.max() == 1


# Which cells a format leaves out


def grid(absent: NDArray[np.bool_], tile: tuple[int, int]) -> StorageGrid:
    rows, columns = absent.shape
    sizes = np.where(absent, 0, 9).astype(np.int64)
    return StorageGrid(columns * tile[0], rows * tile[1], *tile, 2, b"", np.zeros_like(sizes), sizes, True)


def levels(*downsamples: tuple[float, float]) -> list[Level]:
    return [Level(i, 10, 10, x, y) for i, (x, y) in enumerate(downsamples)]


FULL = np.zeros((4, 4), bool)
HOLE = FULL.copy()
HOLE[3, 0] = True
COARSE = np.array([[False, True]])


def found(vendor: str, *grids: Any) -> tuple[LeftOut | None, LeftOut | None]:
    index = StorageIndex((Path("x"),), tuple(one if isinstance(one, tuple | str) else (one,) for one in grids))
    return find_left_out(Path("x"), vendor, levels((1, 1), (4, 2))[: len(grids)], range(len(grids)), index)


@pytest.mark.parametrize("vendor", ["generic-tiff", "philips", "dicom"])
def test_what_any_level_leaves_out_is_background(vendor: str) -> None:
    tile = 16, 8
    background, missing = found(vendor, grid(HOLE, tile))
    assert missing is None and background is not None
    assert (background.cell_w, background.cell_h) == tile
    np.testing.assert_array_equal(background.cells, HOLE)
    # the coarser level's storage tiles are 64 x 16 level-0 pixels; its right one begins beyond those of level 0
    background, _ = found(vendor, grid(FULL, tile), grid(np.array([[False], [True]]), tile))
    assert background is not None
    np.testing.assert_array_equal(background.cells, [[False] * 4] * 2 + [[True] * 4] * 2)
    background, _ = found(vendor, grid(HOLE, tile), grid(np.array([[True], [False]]), tile))
    assert background is not None
    np.testing.assert_array_equal(background.cells, [[True] * 4] * 2 + [[False] * 4, [True, False, False, False]])
    assert found(vendor, grid(FULL, tile), grid(np.array([[False]]), tile)) == (None, None)
    assert found(vendor, grid(FULL, tile)) == (None, None)


def test_other_formats_leave_out_nothing() -> None:
    for vendor in ("hamamatsu", "leica", ""):
        assert found(vendor, grid(HOLE, (16, 8))) == (None, None)


class Page:
    def __init__(self, absent: NDArray[np.bool_], tile_px: tuple[int, int]) -> None:
        self.absent, self.tile_px = absent, tile_px


@pytest.mark.parametrize("storage", ["no storage tiles", "two areas", "one level in words"])
@pytest.mark.parametrize("vendor", ["generic-tiff", "philips", "aperio", "dicom"])
def test_where_the_index_does_not_say_it_the_pages_do(
    monkeypatch: pytest.MonkeyPatch, vendor: str, storage: str
) -> None:
    asked = []

    def pages(path: Path, name: str | None = None) -> tuple[Page, ...]:
        asked.append((path, name))
        return Page(FULL, (9, 9)), Page(HOLE, (8, 4)), Page(COARSE, (8, 4))

    monkeypatch.setattr(module, "read_pages", pages)
    two = (grid(HOLE, (16, 8)), grid(HOLE, (16, 8)))
    index = {
        "no storage tiles": "none",
        "two areas": StorageIndex((Path("x"),), (two, (grid(FULL, (16, 8)),))),
        "one level in words": StorageIndex((Path("x"),), ((grid(FULL, (16, 8)),), "not this one")),
    }[storage]
    name = "".join(list(vendor))  # a name as it comes out of a file: equal, and another object
    answer = find_left_out(Path("x"), name, levels((1, 1), (2, 4)), (1, 2), index)
    if vendor == "dicom":
        assert answer == (None, None) and not asked
        return
    assert asked == [(Path("x"), "philips" if vendor == "philips" else None)]
    background, missing = answer
    if vendor == "aperio":
        assert background is None and missing is not None
        assert (missing.cell_w, missing.cell_h) == (8, 4) and missing.cells.tolist() == HOLE.tolist()
    else:  # the coarse level's storage tiles are 16 x 16 level-0 pixels
        assert missing is None and background is not None and (background.cell_w, background.cell_h) == (8, 4)
        np.testing.assert_array_equal(background.cells, [[False, False, True, True]] * 3 + [[True, False, True, True]])


def test_pages_that_are_not_there_leave_out_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_pages", lambda *_: (Page(HOLE, (8, 4)),))
    both = levels((1, 1), (2, 2))
    background, _ = find_left_out(Path("x"), "generic-tiff", both, (0, 1), "none")
    assert background is not None and background.cells.tolist() == HOLE.tolist()
    assert find_left_out(Path("x"), "generic-tiff", both, (1, 2), "none") == (None, None)
    assert find_left_out(Path("x"), "aperio", both, (1, 2), "none") == (None, None)

    def damaged(*_: Any) -> None:
        raise SlideError("its directories cannot be read")

    monkeypatch.setattr(module, "read_pages", damaged)
    assert find_left_out(Path("x"), "generic-tiff", both, (0, 1), "none") == (None, None)


def test_an_aperio_slide_lacks_what_its_full_resolution_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for first, second in ((FULL, HOLE), (HOLE, FULL)):
        pages = Page(first, (8, 8)), Page(second, (8, 8))
        monkeypatch.setattr(module, "read_pages", lambda *_, pages=pages: pages)
        _, missing = find_left_out(Path("x"), "aperio", levels((1, 1), (4, 4)), (0, 1), "none")
        assert (missing is not None) == first.any()
