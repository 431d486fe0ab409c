"""The grid in numbers: every span, step, count and corner against arithmetic done by hand or by brute force."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stamp_deploy.errors import ExitCode, SlideError, UsageError
from stamp_deploy.grid import MAX_TILES, Grid, make_grid, select_tiles

WIDE = {"slide_width": 4000, "slide_height": 3000, "mpp_x": 0.25, "mpp_y": 0.2, "target_mpp": 0.5, "tile_px": 256}


def grid(**changes: Any) -> Grid:
    return Grid(**{**WIDE, "overlap_px": 32, **changes})


def test_spans_and_steps_of_pixels_that_are_not_square() -> None:
    """256 px of 0.5 um are 128 um: 512 pixels of 0.25 um and 640 of 0.2 um."""
    found = grid()
    assert (found.span_x, found.span_y) == (512, 640)
    assert (found.step_x, found.step_y) == (448, 560)  # 224 px of 0.5 um
    assert (grid(overlap_px=0).step_x, grid(overlap_px=0).step_y) == (512, 640)


def by_hand(length: int, mpp: str, target: str, tile: int, overlap: int) -> int:
    """Tiles that start inside a side and lie at least half in it, in exact fractions."""
    span, step = (Fraction(n) * Fraction(target) / Fraction(mpp) for n in (tile, tile - overlap))
    count = 0
    while count * step < length and count * step + span / 2 <= length:
        count += 1
    return max(1, count)


@pytest.mark.parametrize("overlap", [0, 1, 8, 24, 31])
@pytest.mark.parametrize("side", [1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 100, 999, 1000])
def test_columns_and_rows_by_brute_force(side: int, overlap: int) -> None:
    shape: dict[str, Any] = {"mpp_x": 0.5, "mpp_y": 0.25, "target_mpp": 0.5, "tile_px": 32, "overlap_px": overlap}
    found = Grid(slide_width=side, slide_height=2 * side + 3, **shape)
    assert found.columns == by_hand(side, "0.5", "0.5", 32, overlap)
    assert found.rows == by_hand(2 * side + 3, "0.25", "0.5", 32, overlap)


def test_corners_are_rounded_from_the_exact_product() -> None:
    """Steps of 2.5 and 3.33 pixels: rounded half to even, and the error never adds up."""
    found = Grid(1000, 1000, 0.4, 0.3, 0.5, 2)
    assert (found.step_x, found.step_y) == (2.5, pytest.approx(10 / 3))
    corners = found.coords(np.array([0, 1, 2, 3, 4, 300]), np.array([0, 1, 2, 3, 4, 7]))
    assert corners.dtype == np.int64
    assert corners.tolist() == [[0, 0], [2, 3], [5, 7], [8, 10], [10, 13], [750, 23]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slide_width": 0}, "0 x 3000"),
        ({"slide_height": 0}, "4000 x 0"),
        ({"tile_px": 0, "overlap_px": 0}, "tile size 0"),
        ({"overlap_px": -1}, "overlap -1"),
        ({"overlap_px": 256}, "overlap 256"),
        ({"overlap_px": 300}, "overlap 300"),
        ({"mpp_x": 0.04}, "mpp_x"),
        ({"mpp_y": 21.0}, "mpp_y"),
        ({"target_mpp": float("nan")}, "target_mpp"),
    ],
)
def test_what_is_no_grid_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        grid(**changes)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("changes", [{"overlap_px": 0}, {"overlap_px": 255}, {"tile_px": 1, "overlap_px": 0}])
def test_the_last_possible_values_are_taken(changes: dict[str, Any]) -> None:
    assert grid(**changes).columns >= 1
    tiny = Grid(1, 1, 0.5, 0.5, 0.5, 1)
    assert (tiny.columns, tiny.rows) == (1, 1)


def test_a_grid_may_hold_fifty_million_tiles_and_not_one_row_more() -> None:
    assert MAX_TILES == 50_000_000
    full = Grid(10_000, 5_000, 0.5, 0.5, 0.5, 1)
    assert (full.columns, full.rows) == (10_000, 5_000)
    with pytest.raises(UsageError, match="50010000 tiles"):
        Grid(10_000, 5_001, 0.5, 0.5, 0.5, 1)


@dataclass
class Sized:
    width: int
    height: int
    mpp_xy: tuple[float, float]


@pytest.mark.parametrize("mpp", [(0.525, 0.3), (0.3, 0.525), (0.525, 0.525)])
def test_a_slide_may_be_five_percent_too_coarse(mpp: tuple[float, float]) -> None:
    found = make_grid(Sized(900, 700, mpp), target_mpp=0.5, tile_px=64, overlap_px=7)
    assert (found.slide_width, found.slide_height, found.mpp_x, found.mpp_y) == (900, 700, *mpp)
    assert (found.target_mpp, found.tile_px, found.overlap_px) == (0.5, 64, 7)


@pytest.mark.parametrize("mpp", [(0.526, 0.3), (0.3, 0.526)])
def test_and_not_more_in_either_direction(mpp: tuple[float, float]) -> None:
    with pytest.raises(SlideError, match=r"0\.526 um/px, coarser than the 0\.5"):
        make_grid(Sized(900, 700, mpp), target_mpp=0.5, tile_px=64)


class Fractions:
    """A mask that says what each tile's share is, and notes what it was asked."""

    def __init__(self, shares: list[float]) -> None:
        self.shares = np.array(shares, np.float32)
        self.asked: tuple[NDArray[np.int64], float, float] | None = None

    def tile_fractions(self, coords: NDArray[np.int64], span_x: float, span_y: float) -> NDArray[np.float32]:
        self.asked = coords, span_x, span_y
        return self.shares


def test_tiles_are_kept_from_the_threshold_on_and_stay_in_order() -> None:
    found = Grid(96, 64, 0.5, 0.25, 0.5, 32)
    assert (found.columns, found.rows) == (3, 1)
    found = Grid(96, 128, 0.5, 0.25, 0.5, 32)
    assert (found.columns, found.rows) == (3, 2)
    mask = Fractions([0.0, 0.25, 0.24, 1.0, 0.5, 0.1])
    tiles = select_tiles(found, mask, 0.25)
    assert mask.asked is not None
    assert mask.asked[0].tolist() == [[0, 0], [32, 0], [64, 0], [0, 64], [32, 64], [64, 64]]
    assert mask.asked[1:] == (32, 64)
    assert tiles.columns.tolist() == [1, 0, 1]
    assert tiles.rows.tolist() == [0, 1, 1]
    assert tiles.coords.tolist() == [[32, 0], [0, 64], [32, 64]]
    assert tiles.tissue_fraction.tolist() == [0.25, 1.0, 0.5]
    assert (len(tiles), tiles.total, tiles.skipped_background) == (3, 6, 3)
    assert {array.dtype.name for array in (tiles.columns, tiles.rows)} == {"int32"}


def test_a_tile_is_judged_by_all_that_it_covers() -> None:
    """Tiles that overlap by a quarter still cover 32 px."""
    mask = Fractions([1.0] * 12)
    select_tiles(Grid(96, 128, 0.5, 0.25, 0.5, 32, 8), mask, 0.25)
    assert mask.asked is not None
    assert mask.asked[0][:5].tolist() == [[0, 0], [24, 0], [48, 0], [72, 0], [0, 48]]
    assert mask.asked[1:] == (32, 64)


def test_a_threshold_of_nothing_keeps_no_glass() -> None:
    tiles = select_tiles(Grid(96, 32, 0.5, 0.5, 0.5, 32), Fractions([0.0, 1e-6, 0.0]), 0.0)
    assert tiles.columns.tolist() == [1]


def test_without_a_mask_each_tile_is_kept_as_whole_tissue() -> None:
    tiles = select_tiles(Grid(96, 64, 0.5, 0.5, 0.5, 32), None, 0.9)
    assert (len(tiles), tiles.total, tiles.skipped_background) == (6, 6, 0)
    assert (tiles.tissue_fraction == 1).all()
    assert tiles.columns.tolist() == [0, 1, 2, 0, 1, 2]
    assert tiles.rows.tolist() == [0, 0, 0, 1, 1, 1]


def test_resolution_and_tile_size_are_named() -> None:
    """Two numbers that could be swapped."""
    with pytest.raises(TypeError):
        make_grid(Sized(900, 700, (0.5, 0.5)), 0.5, 64)  # type: ignore[misc]
