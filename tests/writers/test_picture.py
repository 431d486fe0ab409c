"""Where pictures lie on the slide: crop, microns, grid cells under pixels, bars; nothing here is square."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.result_factory import make_result, make_trust, make_validation

from stamp_deploy.grid import Grid
from stamp_deploy.result import Result
from stamp_deploy.writers import canvas, heatmaps, overview
from stamp_deploy.writers.picture import LEFT_OUT_OPACITY, OPACITY, Painter, make_view, result_styles

WIDTH, HEIGHT, MPP_X, MPP_Y = 4040, 3000, 0.28, 0.25
GRID = Grid(WIDTH, HEIGHT, MPP_X, MPP_Y, 0.5, 64, 0)


def scored(cells: list[tuple[int, int]], pathways: int = 1) -> Result:
    """A result of the tiles in these (column, row); its thumbnail has one pixel for 4 x 5 of level 0."""
    base = make_result(n_tiles=len(cells), pathways=pathways)
    columns, rows = np.array(cells).T
    slide = dataclasses.replace(base.slide, width=WIDTH, height=HEIGHT, mpp_x=MPP_X, mpp_y=MPP_Y)
    picture = np.random.default_rng(2).integers(0, 255, (HEIGHT // 5, WIDTH // 4, 3), np.uint8)
    coords = GRID.coords(columns, rows)
    return dataclasses.replace(base, grid=GRID, slide=slide, coords=coords, thumbnail=picture)


def test_a_view_is_the_scored_tiles_and_one_tile_around_them() -> None:
    result = scored([(5, 4), (9, 4), (7, 11)])
    view = make_view(result, 500)
    x0, y0 = result.coords.min(axis=0) - (GRID.span_x, GRID.span_y)
    x1, y1 = result.coords.max(axis=0) + 2 * np.array([GRID.span_x, GRID.span_y])
    left, right, top, bottom = np.floor(x0 / 4) * 4, np.ceil(x1 / 4) * 4, np.floor(y0 / 5) * 5, np.ceil(y1 / 5) * 5
    assert abs(GRID.span_x - GRID.span_y) > 10  # a side taken for the other one shows
    assert view.box == pytest.approx((left, top, right, bottom))
    assert view.width_um == pytest.approx((right - left) * MPP_X)
    assert view.height_um == pytest.approx((bottom - top) * MPP_Y)
    high, wide = view.picture.shape[:2]
    assert max(high, wide) == 500
    x, y = left + (np.arange(wide) + 0.5) * (right - left) / wide, top + (np.arange(high) + 0.5) * (bottom - top) / high
    np.testing.assert_array_equal(view.columns, x // GRID.step_x)
    np.testing.assert_array_equal(view.rows, y // GRID.step_y)


def test_the_rest_of_the_slide_below_and_right_of_the_grid_is_of_no_tile() -> None:
    last = GRID.columns - 1, GRID.rows - 1
    assert GRID.columns * GRID.step_x < WIDTH - 20 and GRID.rows * GRID.step_y < HEIGHT - 20
    result = scored([last])
    view = make_view(result, 600)
    wide, high = len(view.columns), len(view.rows)
    x = view.box[0] + (np.arange(wide) + 0.5) * (view.box[2] - view.box[0]) / wide
    y = view.box[1] + (np.arange(high) + 0.5) * (view.box[3] - view.box[1]) / high
    beside, below = x >= GRID.columns * GRID.step_x, y >= GRID.rows * GRID.step_y
    assert beside.any() and below.any()
    np.testing.assert_array_equal(view.columns == -1, beside)
    np.testing.assert_array_equal(view.rows == -1, below)
    painted = Painter(result, view).paint(np.array([0.5]), 0.0, 1.0)
    unscored = Painter(result, view).paint(np.array([np.nan]), 0.0, 1.0)
    changed = (painted != unscored).any(axis=2)
    np.testing.assert_array_equal(changed[below], False)
    np.testing.assert_array_equal(changed[:, beside], False)
    assert changed[np.ix_(view.rows == last[1], view.columns == last[0])].all()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_tile_that_is_left_out_has_its_own_colour_and_weakly(value: float) -> None:
    from stamp_deploy.map_style import STRETCHED, colour_table

    result = scored([(5, 4), (9, 4)])
    result = dataclasses.replace(result, trust=make_trust(2, left_out=[1]))
    view = make_view(result, 600)
    picture = Painter(result, view).paint(np.full(2, value), 0.0, 1.0).astype(float)
    colour = colour_table(STRETCHED)[round(value * 255)].astype(float)
    grey = 90 + view.picture.mean(axis=2, keepdims=True) * 165 / 255
    row = view.rows == 4
    kept = np.ix_(row, view.columns == 5)
    assert np.abs(picture[kept] - (OPACITY * colour + (1 - OPACITY) * grey[kept])).max() <= 4
    weak = np.ix_(row, view.columns == 9)
    away = np.abs(picture[weak] - (LEFT_OUT_OPACITY * colour + (1 - LEFT_OUT_OPACITY) * grey[weak])).max(axis=2)
    assert 0.6 < (away <= 4).mean() < 0.8, "all but the hatching, two pixels of seven"


def dark_rows(image: Image.Image, x: int) -> list[int]:
    return np.flatnonzero((np.asarray(image)[:, x] < 60).all(axis=1)).tolist()


def test_ticks_of_an_upright_bar_stand_at_their_values() -> None:
    """Values 0, 0.2 ... 1 on a bar from 0 to 1.1: upside down they would stand elsewhere."""
    page = Image.new("RGB", (200, 460), "white")
    left, top, wide, high = 20, 30, 20, 400
    canvas.vertical_bar(page, (left, top, wide, high), 0.0, 1.1, "")
    point = round(high * 0.03)
    inner = high - 1 - 2 * point
    values = [value for value, _ in canvas.ticks(0.0, 1.1, 8)]
    assert values[0] == 0 and max(values) < 1.1
    expected = sorted(top + high - 1 - point - round(value / 1.1 * inner) for value in values)
    assert dark_rows(page, left + wide + 3) == expected


def test_a_scale_bar_has_its_length_on_the_slide() -> None:
    result = scored([(5, 4), (9, 4), (7, 20)])
    view = make_view(result, 500)
    assert view.height_um > 1.5 * view.width_um
    page = Image.new("RGB", (700, 60), "white")
    canvas.scale_bar(page, view, (10, 30), view.picture.shape[1], 15)
    line = np.flatnonzero((np.asarray(page)[28] < 60).all(axis=1))
    bar = line[: np.argmax(np.append(np.diff(line) > 1, True)) + 1]
    length_um = canvas.round_length_um(view.width_um)
    assert bar[0] == 10 and len(bar) - 1 == round(length_um / view.width_um * view.picture.shape[1])


def test_each_map_of_a_folder_is_of_the_pathway_that_it_is_called_by(tmp_path: Path) -> None:
    """Pictures come in the order of the evidence, files in the order of the bundle."""
    base = make_result(40, 4, thumbnail_px=200)
    result = dataclasses.replace(base, validation=make_validation(base.pathway_names, not_validated=2))
    styles = result_styles(result)
    assert [style.index for style in styles] != list(range(4))
    heatmaps.write(result, tmp_path)
    for style in styles:
        drawn = np.asarray(heatmaps.draw(result, make_view(result), style))
        with Image.open(tmp_path / "maps" / f"{style.name}.png") as found:
            assert np.array_equal(np.asarray(found), drawn), style.name


def test_every_pathway_is_on_one_of_the_overview_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_result(20, 41, thumbnail_px=60)
    shown: list[str] = []
    real = overview.draw

    def draw(*arguments: object) -> Image.Image:
        styles, page, pages = arguments[3], arguments[5], arguments[6]
        shown.extend(style.name for style in styles)  # type: ignore[attr-defined]
        assert pages == 3 and len(styles) == (13 if page == 3 else 14)  # type: ignore[arg-type]
        return Image.new("RGB", (1, 1)) if page < 3 else real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(overview, "draw", draw)
    assert [path.name for path in overview.write(result, tmp_path)] == [
        "overview.png", "overview-2.png", "overview-3.png"
    ]  # fmt: skip
    assert shown == [style.name for style in result_styles(result)]
