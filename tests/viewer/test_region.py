"""Figures of an area that is drawn: on a slide of other microns in x than in y, with holes, tissue and a border."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.result_factory import make_result

pytest.importorskip("shapely")

from stamp_deploy.errors import UsageError
from stamp_deploy.grid import Grid
from stamp_deploy.result import GLOBAL_UNIT, Result
from stamp_deploy.summarise import add_summaries
from stamp_deploy.trust import SlideTrust, TileFlag
from stamp_deploy.validation import PathwayValidation, Scale, Validation
from stamp_deploy.viewer.region import area_of, region_facts

WIDTH, HEIGHT, MPP_X, MPP_Y = 4000, 3000, 0.28, 0.25
GRID = Grid(WIDTH, HEIGHT, MPP_X, MPP_Y, 0.5, 64, 0)
TILE_MM2 = (64 * 0.5 / 1000) ** 2
TISSUE_PX = 1500
"""So far down there is tissue."""


def box(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


@pytest.fixture(scope="module")
def result() -> Result:
    """The upper half of the slide is tissue; the score of its tiles is their column."""
    rows, columns = np.divmod(np.arange(12 * GRID.columns), GRID.columns)
    base = make_result(n_tiles=len(rows), pathways=("UP",), heads=0)
    slide = replace(base.slide, width=WIDTH, height=HEIGHT, mpp_x=MPP_X, mpp_y=MPP_Y)
    mask = np.zeros((300, 400), bool)
    mask[: TISSUE_PX // 10] = True
    covered = np.clip((TISSUE_PX - rows * GRID.span_y) / GRID.span_y, 0, 1).astype(np.float32)
    plain = replace(
        base, grid=GRID, slide=slide, coords=GRID.coords(columns, rows), tissue_mask=mask,
        pathways=columns[:, None].astype(np.float32), tissue_fraction=covered,
        thumbnail=np.full((300, 400, 3), 200, np.uint8),
    )  # fmt: skip
    return add_summaries(plain)


def tiles_box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return box(left * GRID.span_x, top * GRID.span_y, right * GRID.span_x, bottom * GRID.span_y)


def test_areas_are_of_both_directions_and_holes_are_none(result: Result) -> None:
    found = region_facts(result, area_of([[tiles_box(10, 4, 25, 10), tiles_box(14, 6, 20, 8)]]))
    assert found["tiles"] == 15 * 6 - 6 * 2
    assert found["area_mm2"] == pytest.approx(78 * TILE_MM2)
    assert found["tissue_mm2"] == pytest.approx(78 * TILE_MM2, rel=0.02)


def test_only_tissue_counts_and_only_what_lies_on_the_slide(result: Result) -> None:
    left, top = 20 * GRID.span_x, 8 * GRID.span_y
    found = region_facts(result, area_of([[box(left, top, 6000, 9000)]]))
    assert found["area_mm2"] == pytest.approx((WIDTH - left) * (HEIGHT - top) * MPP_X * MPP_Y / 1e6)
    assert found["tiles"] == (GRID.columns - 20) * 4
    tissue_rows = TISSUE_PX / GRID.span_y - 8
    assert found["tissue_mm2"] == pytest.approx((GRID.columns - 20) * tissue_rows * TILE_MM2, rel=0.02)


def test_the_figures_are_those_of_the_tiles_inside_beside_those_of_the_slide(result: Result) -> None:
    left, right = 10 * GRID.span_x, 20 * GRID.span_x
    (row,) = region_facts(result, area_of([[box(left, 0, right, 1400)]]))["pathways"]
    (whole,) = result.summaries[0].pathways
    assert row["mean"] == pytest.approx(14.5, abs=0.1) and row["sd"] == pytest.approx(np.std(np.arange(10)), abs=0.1)
    assert row["slide_mean"] == pytest.approx(whole.mean) and abs(whole.mean - row["mean"]) > 2


def test_every_figure_of_a_drawn_area_is_the_one_of_its_name(result: Result) -> None:
    """On a common scale, with tiles that are left out: columns 10 to 29 of the first four rows, all of them tissue."""
    facts = PathwayValidation("UP", r=0.5, r_low=0.4, r_high=0.6, sections=4, patients=4, scale=Scale(15.0, 8.0))
    columns = result.tile_cells[:, 0]
    flags = np.where((columns >= 26) & (columns < 40), TileFlag.BLURRED, 0).astype(np.uint16)
    n = len(result.coords)
    judged = add_summaries(
        replace(
            result, validation=Validation("z within section", (facts,)), summaries=(), score_unit="z within section",
            trust=SlideTrust("doubtful", ("blurred",), 2.0, np.zeros(n, np.float32), flags, n, "rule"),
        )
    )  # fmt: skip
    found = region_facts(judged, area_of([[tiles_box(10, 0, 30, 4)]]))
    assert (found["tiles"], found["left_out"], found["high_z"]) == (16 * 4, 4 * 4, 1.0)
    assert (
        found["tissue_mm2"] == pytest.approx(64 * TILE_MM2, rel=0.02) and found["area_mm2"] > 1.2 * found["tissue_mm2"]
    )
    (row,) = found["pathways"]
    mean = np.arange(10, 26).mean()
    assert row["mean"] == pytest.approx(mean, abs=0.1)
    assert row["mean_z"] == pytest.approx((mean - 15) / 8, abs=0.02)
    assert row["share_above"] == pytest.approx(3 / 16, abs=0.01)  # columns 23 to 25
    (whole,) = judged.summaries[0].pathways
    assert whole.mean_z is not None
    assert (row["slide_mean"], row["slide_mean_z"]) == (whole.mean, whole.mean_z) and whole.mean < mean - 2
    assert found["unit"] == "z within section"
    both = replace(judged, pathways_global=judged.pathways, summaries=())
    assert region_facts(both, area_of([[tiles_box(10, 0, 30, 4)]]))["unit"] == GLOBAL_UNIT != "z within section"


def test_an_interval_is_that_of_the_mean(result: Result) -> None:
    """Of noise about 5, so that blocks are small and many: the interval holds the mean, and not the sd of 1."""
    noise = 5 + np.random.default_rng(0).normal(size=(len(result.coords), 1)).astype(np.float32)
    (row,) = region_facts(replace(result, pathways=noise), area_of([[tiles_box(5, 0, 45, 11)]]))["pathways"]
    low, high = row["interval"]
    assert low < row["mean"] < high and low > 4.5 and high < 5.5
    assert row["slide_mean_z"] is None and row["mean_z"] is None and row["interval_z"] is None
    facts = PathwayValidation("UP", r=0.5, r_low=0.4, r_high=0.6, sections=4, patients=4, scale=Scale(4.0, 2.0))
    known = replace(result, pathways=noise, validation=Validation("z within section", (facts,)))
    (row,) = region_facts(known, area_of([[tiles_box(5, 0, 45, 11)]]))["pathways"]
    assert row["interval_z"] == pytest.approx([(low - 4) / 2, (high - 4) / 2])


def test_an_area_that_is_too_small_for_an_interval_says_why(result: Result) -> None:
    found = region_facts(result, area_of([[tiles_box(5, 0, 9, 3)]]))
    assert found["pathways"][0]["interval"] is None and "blocks" in found["no_interval_because"]


def test_a_spike_of_an_outline_does_not_lose_its_area() -> None:
    """Made valid, it is a square and a line."""
    spiked = [[0, 0], [10, 0], [20, 0], [10, 0], [10, 10], [0, 10]]
    assert area_of([[spiked]]).area == pytest.approx(100)
    assert area_of([[spiked], [box(5, 5, 15, 15)]]).area == pytest.approx(175)  # what overlaps counts once


@pytest.mark.parametrize("polygons", [[], [[[[0, 0], [1, 1]]]], [[[[0, 0], [10, 10], [20, 20]]]]])
def test_what_has_no_area_is_refused(polygons: list[list[list[list[float]]]]) -> None:
    with pytest.raises(UsageError, match=r"no area|no polygon"):
        area_of(polygons)
