"""The general route against a slide made of numbers: which region is asked for, and what each fault makes of a tile."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stamp_deploy.errors import SlideError
from stamp_deploy.grid import Grid, select_tiles
from stamp_deploy.slide.backends import Level
from stamp_deploy.slide.left_out import LeftOut
from stamp_deploy.tiles import TileStatus
from stamp_deploy.tiles.reader import Stop
from stamp_deploy.tiles.region_reader import RegionReader


@dataclass
class Numbers:
    """A slide whose level-0 pixel at (x, y) is (x, y, 7) of 255, and notes what was read."""

    levels: tuple[Level, ...]
    missing: LeftOut | None = None
    bad: set[int] = field(default_factory=set)
    asked: list[tuple[int, ...]] = field(default_factory=list)
    route: Any = field(default_factory=lambda: SimpleNamespace(name="openslide"))

    def read_region(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        self.asked.append((level, x, y, w, h))
        if len(self.asked) - 1 in self.bad:
            raise SlideError(f"region {len(self.asked) - 1} is damaged", remedy="scan again")
        one = self.levels[level]
        px = x + (np.arange(w) + 0.5) * one.downsample_x
        py = y + (np.arange(h) + 0.5) * one.downsample_y
        return np.stack(np.broadcast_arrays(px[None] // 4, py[:, None] // 4, 7), axis=-1).clip(0, 255).astype(np.uint8)


def levels(*downsamples: tuple[float, float]) -> tuple[Level, ...]:
    return tuple(Level(i, int(1000 / x), int(900 / y), x, y) for i, (x, y) in enumerate(downsamples))


def read(
    slide: Numbers, grid: Grid, stop: Stop | None = None
) -> tuple[RegionReader, NDArray[np.uint8], NDArray[np.uint8]]:
    tiles = select_tiles(grid, None, 0)
    reader = RegionReader(slide, tiles, stop)  # type: ignore[arg-type]
    out = np.full((len(tiles), grid.tile_px, grid.tile_px, 3), 99, np.uint8)
    assert reader.order.tolist() == list(range(len(tiles)))
    return reader, reader.fill(reader.order, out), out


def test_at_native_scale_a_tile_is_its_region() -> None:
    slide = Numbers(levels((1, 1)))
    grid = Grid(1000, 900, 0.5, 0.5, 0.5, 200, 50)
    _, status, out = read(slide, grid)
    assert (status == TileStatus.OK).all()
    assert slide.asked == [(0, x, y, 200, 200) for y in range(0, 900, 150) for x in range(0, 1000, 150)][: len(out)]
    for i, (x, y) in enumerate(select_tiles(grid, None, 0).coords):
        assert out[i, 0, 0].tolist() == [(x + 0.5) // 4, (y + 0.5) // 4, 7]
        assert out[i, 10, 190, 0] == min((x + 190.5) // 4, 255)


@pytest.mark.parametrize("spacing", [(0.25, 0.25), (0.25, 0.3), (0.31, 0.27)])
def test_the_region_covers_the_tile_and_no_more(spacing: tuple[float, float]) -> None:
    """Tiles of 40 px at 0.7 um/px: broken spans in x and y, from level 0 or from one of half the size."""
    for pyramid in (((1.0, 1.0),), ((1.0, 1.0), (2.0, 1.9))):
        slide = Numbers(levels(*pyramid))
        grid = Grid(1000, 900, *spacing, 0.7, 40)
        reader, status, out = read(slide, grid)
        assert (status == TileStatus.OK).all()
        level = slide.levels[reader.plan.level]
        assert level.index == len(pyramid) - 1
        for (x, y), (number, left, top, w, h), tile in zip(
            select_tiles(grid, None, 0).coords, slide.asked, out, strict=True
        ):
            assert number == level.index
            x0, y0 = math.floor(x / level.downsample_x), math.floor(y / level.downsample_y)
            assert (left, top) == (round(x0 * level.downsample_x), round(y0 * level.downsample_y))
            right = (x + grid.span_x) / level.downsample_x
            bottom = (y + grid.span_y) / level.downsample_y
            assert (x0 + w, y0 + h) == (math.ceil(right - 1e-6), math.ceil(bottom - 1e-6))
            middle = (x + grid.span_x / 2) / 4, (y + grid.span_y / 2) / 4
            assert tile[19:21, 19:21, :2].mean((0, 1)) == pytest.approx(middle, abs=1.1)


@pytest.mark.parametrize("spacing", [(0.5, 0.47), (0.47, 0.5)])
def test_a_slide_of_the_models_spacing_in_one_direction_is_resampled_in_the_other(spacing: tuple[float, float]) -> None:
    slide = Numbers(levels((1, 1)))
    grid = Grid(900, 900, *spacing, 0.5, 40)
    _, status, out = read(slide, grid)
    assert (status == TileStatus.OK).all() and grid.span_x != grid.span_y
    for (x, y), tile in zip(select_tiles(grid, None, 0).coords, out, strict=True):
        for row, column in ((1, 38), (20, 20), (38, 1)):
            there = (x + (column + 0.5) * grid.span_x / 40) / 4, (y + (row + 0.5) * grid.span_y / 40) / 4
            assert tile[row, column, :2] == pytest.approx(there, abs=1.1)


def test_a_region_that_fails_marks_its_tile_and_no_other() -> None:
    slide = Numbers(levels((1, 1)), bad={1, 3})
    reader, status, out = read(slide, Grid(1000, 400, 0.5, 0.5, 0.5, 200))
    assert status.tolist() == [0, TileStatus.CORRUPT, 0, TileStatus.CORRUPT, 0, 0, 0, 0, 0, 0]
    assert (out[1] == 99).all()
    assert "region 1" in str(reader.failure)


def test_what_the_file_lacks_is_missing_and_is_not_read() -> None:
    cells = np.zeros((2, 5), bool)
    cells[0, 2] = cells[1, 4] = True
    slide = Numbers(levels((1, 1)), missing=LeftOut(cells, 200, 200))
    reader, status, _ = read(slide, Grid(1000, 400, 0.5, 0.5, 0.5, 200))
    assert np.flatnonzero(status == TileStatus.MISSING).tolist() == [2, 9]
    assert (np.delete(status, [2, 9]) == TileStatus.OK).all()
    assert len(slide.asked) == 8
    assert reader.failure is None


def test_a_stop_leaves_the_rest_as_timed_out() -> None:
    stop = Stop(math.inf)
    slide = Numbers(levels((1, 1)))
    original = slide.read_region

    def third_is_last(*place: int) -> NDArray[np.uint8]:
        if len(slide.asked) == 2:
            stop.set()
        return original(*place)

    slide.read_region = third_is_last  # type: ignore[method-assign]
    _, status, _ = read(slide, Grid(1000, 400, 0.5, 0.5, 0.5, 200), stop)
    assert status.tolist() == [0] * 3 + [TileStatus.TIMEOUT] * 7


def test_tiles_are_filled_in_any_order() -> None:
    slide = Numbers(levels((1, 1)))
    tiles = select_tiles(Grid(1000, 400, 0.5, 0.5, 0.5, 200), None, 0)
    reader = RegionReader(slide, tiles)  # type: ignore[arg-type]
    out = np.zeros((2, 200, 200, 3), np.uint8)
    assert reader.fill(np.array([7, 2]), out).tolist() == [0, 0]
    assert [place[1:3] for place in slide.asked] == [(400, 200), (400, 0)]
    assert reader.times.decode_s > 0
