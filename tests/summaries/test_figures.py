"""Figures of a summary against other libraries, and at the edges of their rules."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.result_factory import make_result
from support.tile_fields import cells_of, correlated_field, tile_scores

from stamp_deploy.grid import Grid
from stamp_deploy.summaries import TileScores, edge_warning, summarise, tissue_correlation, usable_weights
from stamp_deploy.summaries.blocks import MIN_BLOCKS, REPLICATES, Blocks, limits, make_blocks, side_tiles
from stamp_deploy.summaries.hot_spot import hot_spot
from stamp_deploy.summaries.neighbours import neighbour_pairs
from stamp_deploy.summaries.tile_scores import common_thresholds
from stamp_deploy.summarise import add_summaries
from stamp_deploy.trust import SlideTrust, TileFlag
from stamp_deploy.validation import Scale

WIDE = cells_of(np.ones((4, 9), bool))


def anisotropic(values: np.ndarray, weights: np.ndarray | None = None, overlap_px: int = 0) -> TileScores:
    """4 rows and 9 columns of tiles, 100 um wide, where a pixel is 0.2 um wide and 0.4 um high."""
    grid = Grid(4400, 950, 0.2, 0.4, 0.5, 200, overlap_px)
    given = np.ones(36) if weights is None else weights
    return TileScores(("P",), values[:, None].astype(float), given, WIDE, grid, (None,))


def test_areas_and_steps_are_in_microns_whichever_way_pixels_are_longer() -> None:
    tiles = anisotropic(np.zeros(36))
    assert tiles.cell_mm2 == pytest.approx(0.01) and tiles.step_um == pytest.approx(100)
    assert tiles.tissue_mm2 == pytest.approx(np.full(36, 0.01))
    half = anisotropic(np.zeros(36), overlap_px=100)
    assert half.cell_mm2 == pytest.approx(0.0025) and half.step_um == pytest.approx(50)


def test_a_hot_spot_lies_at_its_place_on_the_slide() -> None:
    """Tiles of 500 x 250 px: columns 6 to 8 of rows 2 and 3, the last of which end beyond the slide."""
    values, weights = np.zeros(36), np.ones(36)
    inside = (WIDE[:, 0] >= 6) & (WIDE[:, 1] >= 2)
    values[inside] = np.arange(6) + 2.0
    weights[inside] = [1, 1, 1, 1, 1, 0.5]
    values[0] = 2.0  # a piece of one tile
    spot = hot_spot(anisotropic(values, weights), 0, 2.0)
    assert spot is not None and spot.tiles == 6
    assert spot.box_level0_px == (3000, 500, 4400, 950)
    share = weights[inside] / 5.5
    assert spot.mean == pytest.approx(share @ values[inside])
    assert spot.x_level0_px == pytest.approx(share @ (WIDE[inside, 0] * 500 + 250))
    assert spot.y_level0_px == pytest.approx(share @ (WIDE[inside, 1] * 250 + 125))
    assert spot.area_mm2 == pytest.approx(0.055)


def test_a_threshold_is_reached_by_its_own_value_and_the_upper_left_of_equals_is_taken() -> None:
    values = np.zeros(36)
    values[[2, 8, 30]] = 1.0
    spot = hot_spot(anisotropic(values), 0, 1.0)
    assert spot is not None and (spot.tiles, spot.box_level0_px[:2]) == (1, (1000, 0))
    assert hot_spot(anisotropic(values), 0, np.nextafter(1.0, 2)) is None


def test_tiles_connect_by_edges_in_both_directions() -> None:
    values = np.zeros(36)
    column, row = WIDE.T
    values[(column == 4) | ((row == 1) & (column > 4))] = 1.0  # a column of four and four to its right
    values[(row == 3) & (column < 4) & (column != 3)] = 1.0  # three that do not touch it
    spot = hot_spot(anisotropic(values), 0, 1.0)
    assert spot is not None and spot.tiles == 8 and spot.box_level0_px == (2000, 0, 4400, 950)


def test_neighbours_are_above_below_left_and_right_and_each_pair_is_named_once() -> None:
    cells = np.array([[0, 0], [2, 0], [1, 0], [1, 1], [5, 1], [0, 1], [1, 3]])
    for steps in (1, 2):
        found = {tuple(sorted(pair)) for pair in neighbour_pairs(cells, steps).tolist()}
        apart = np.abs(cells[:, None] - cells[None])
        near = (apart.sum(2) == steps) & (apart.min(2) == 0)
        assert found == {(i, j) for i, j in zip(*np.nonzero(near), strict=True) if i < j}
        assert len(found) == len(neighbour_pairs(cells, steps))


class TestBlocks:
    @pytest.mark.parametrize(
        ("tiles", "reach", "side"), [(1, 0, 2), (16, 1, 2), (17, 1, 3), (81, 0, 3), (82, 0, 4), (82, 2, 4), (82, 3, 6)]
    )
    def test_the_side(self, tiles: int, reach: int, side: int) -> None:
        assert side_tiles(tiles, reach) == side

    def test_a_block_is_a_square_of_neighbours(self) -> None:
        cells = cells_of(np.ones((6, 10), bool))
        blocks = make_blocks(tile_scores(cells, np.zeros(60)), reach=1)
        assert (blocks.side_tiles, blocks.side_um, blocks.count) == (3, 300, 8)
        for block in range(8):
            inside = cells[blocks.member == block]
            assert len(np.unique(inside // 3, axis=0)) == 1
        assert np.bincount(blocks.member).tolist() in ([9, 9, 9, 3] * 2, [9, 9] * 3 + [3, 3])
        assert blocks.draws.shape == (REPLICATES, 8) and (blocks.draws.sum(axis=1) == 8).all()
        assert blocks.draws.mean(axis=0) == pytest.approx(np.ones(8), abs=0.15) and blocks.why_none == ""

    @pytest.mark.parametrize(("columns", "count"), [(14, 7), (16, 8)])
    def test_eight_of_them_are_needed(self, columns: int, count: int) -> None:
        blocks = make_blocks(tile_scores(cells_of(np.ones((1, columns), bool)), np.zeros(columns)), reach=1)
        assert blocks.count == count and (len(blocks.draws) > 0) == (count >= MIN_BLOCKS)
        if count < MIN_BLOCKS:
            assert "blocks of 200 um are needed; tissue lies in 7 of them, and 8" in blocks.why_none

    def test_sums_are_over_the_blocks_that_were_drawn(self) -> None:
        member = np.array([0, 1, 1, 2])
        draws = np.array([[3.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
        per_tile = np.arange(24.0).reshape(4, 2, 3)
        found = Blocks(2, 200.0, 3, member, draws).sums(per_tile)
        by_hand = np.stack([sum(draw[member[i]] * per_tile[i] for i in range(4)) for draw in draws])
        np.testing.assert_allclose(found, by_hand)

    @pytest.mark.parametrize("blocks", [8, 12, 200])
    def test_limits_are_wider_where_blocks_are_few(self, blocks: int) -> None:
        """Hesterberg's expanded percentiles: t of the number of blocks less one, as a level of the normal."""
        values = np.arange(1001.0)[:, None] * [1.0, -2.0]
        level = stats.norm.cdf(stats.t.ppf(0.025, blocks - 1) * math.sqrt(blocks / (blocks - 1)))
        first, second = limits(values, blocks)
        assert first == pytest.approx((1000 * level, 1000 * (1 - level)), rel=1e-9)
        assert second == pytest.approx((-2000 * (1 - level), -2000 * level), rel=1e-9)
        assert 0 < level < 0.025

    def test_replicates_without_a_value_are_left_out(self) -> None:
        some = np.column_stack([np.where(np.arange(1001) % 7, np.arange(1001.0), np.nan), np.full(1001, np.nan)])
        found = limits(some, 500)
        known = some[np.isfinite(some[:, 0]), 0]
        assert found[0] is not None and found[0][0] == pytest.approx(np.percentile(known, 2.5), abs=3)
        assert found[1] is None


class TestTheTissuesEdge:
    def test_ranks_are_scipys_with_ties_on_both_sides(self) -> None:
        random = np.random.default_rng(3)
        tissue, values = random.integers(0, 5, 40) / 4, random.integers(0, 4, (40, 3)).astype(float)
        values[:, 2] -= 2 * tissue
        expected = [stats.spearmanr(values[:, i], tissue).statistic for i in range(3)]
        assert tissue_correlation(values, tissue) == pytest.approx(expected)

    @pytest.mark.parametrize(("count", "known"), [(9, False), (10, True)])
    def test_ten_tiles_are_needed(self, count: int, known: bool) -> None:
        (found,) = tissue_correlation(np.arange(float(count))[:, None], np.arange(count) / count)
        assert (found is not None) == known

    def test_the_strongest_of_either_sign_is_named(self) -> None:
        assert edge_warning({"A": 0.299, "B": -0.299, "C": None}) == ""
        assert edge_warning({"A": 0.3}) and edge_warning({"A": -0.3})
        told = edge_warning({"A": 0.35, "B": -0.8, "C": None, "D": 0.1})
        assert told.startswith("scores of 2 of 4 pathways") and "-0.80 for B" in told


def test_pathways_that_are_worked_out_together_are_those_that_stand_alone() -> None:
    """Twenty of them: some reach far and some do not, each with a scale of its own."""
    cells = cells_of(np.ones((24, 24), bool))
    fields = [correlated_field(24, 24, i, 0.3 + 1.5 * (i % 3 == 0)).ravel() + i for i in range(20)]
    tiles = replace(
        tile_scores(cells, np.column_stack(fields), np.random.default_rng(0).uniform(0.3, 1, 576)),
        scales=tuple(None if i == 5 else Scale(float(i), 0.5 + i / 10) for i in range(20)),
    )
    together = summarise(tiles).pathways
    assert [found.name for found in together] == list(tiles.names)
    assert len({found.block_um for found in together}) > 1
    for i in (0, 3, 5, 7, 8, 9, 16, 19):
        (alone,) = summarise(tiles.pathways([i])).pathways
        assert together[i].mean == pytest.approx(alone.mean) and together[i].name == alone.name == f"P{i + 1}"
        assert together[i].threshold == pytest.approx(alone.threshold)
        assert (together[i].block_um, together[i].reach_um) == (alone.block_um, alone.reach_um)
        assert together[i].mean_interval == pytest.approx(alone.mean_interval)
        assert together[i].hot_spot == alone.hot_spot
        assert together[i].morans_i == pytest.approx(alone.morans_i)


def test_figures_are_weighted_by_tissue_and_quartiles_are_of_the_tissue() -> None:
    cells = cells_of(np.ones((20, 20), bool))
    random = np.random.default_rng(1)
    values, weights = random.normal(size=400), random.integers(1, 5, 400) / 4
    (found,) = summarise(tile_scores(cells, values, weights)).pathways
    repeated = np.repeat(values, (weights * 4).astype(int))
    assert found.mean == pytest.approx(repeated.mean())
    assert found.sd == pytest.approx(math.sqrt(np.average((values - found.mean) ** 2, weights=weights) * 400 / 399))
    low, high = np.quantile(repeated, [0.25, 0.75], method="inverted_cdf")
    assert found.quartile_range == pytest.approx(high - low)
    assert found.threshold == pytest.approx(np.quantile(repeated, 0.9, method="inverted_cdf"))
    assert found.morans_i_expected == pytest.approx(-1 / 399)
    assert found.tissue_correlation == pytest.approx(stats.spearmanr(values, weights).statistic)


@pytest.mark.parametrize(("share", "inside"), [(0.5, True), (0.499, False)])
def test_a_tile_belongs_to_a_class_that_holds_half_of_its_tissue(share: float, inside: bool) -> None:
    """Half of its tissue, not of the tile; and it counts by its tissue there."""
    result = make_result(n_tiles=400, pathways=1)
    tissue = np.linspace(0.25, 1, len(result.tissue_fraction)).astype(np.float32)
    result = replace(result, tissue_fraction=tissue)
    classes = {"Tumor": (tissue * np.float32(share)).astype(np.float32)}
    if inside:
        classes["Tumor"] = np.where(np.arange(len(tissue)) % 2, tissue / 2, 0).astype(np.float32)
    _, tumor = add_summaries(result, classes).summaries
    if not inside:
        assert tumor.tiles == 0
        return
    odd = np.arange(len(tissue)) % 2 == 1
    assert tumor.tiles == odd.sum()
    want = np.average(result.pathways[odd, 0], weights=tissue[odd])
    assert tumor.pathways[0].mean == pytest.approx(want, rel=1e-5)
    whole = add_summaries(result).summaries[0]
    cell = whole.tissue_mm2 / tissue.sum()
    assert tumor.tissue_mm2 == pytest.approx(tissue[odd].sum() / 2 * cell, rel=1e-5)


def test_tiles_that_are_left_out_are_counted_in_their_own_region() -> None:
    result = make_result(n_tiles=400, pathways=1)
    count = len(result.tissue_fraction)
    flags = np.zeros(count, np.uint16)
    flags[:30] = TileFlag.INK
    trust = SlideTrust("inside", tile_distance=np.zeros(count, np.float32), tile_flags=flags)
    here = np.where(np.arange(count) >= 20, result.tissue_fraction, 0).astype(np.float32)
    whole, region = add_summaries(replace(result, trust=trust), {"R": here}).summaries
    assert (whole.tiles, whole.tiles_left_out) == (count - 30, 30)
    assert (region.tiles, region.tiles_left_out) == (count - 30, 10)


def test_high_tiles_without_tissue_are_a_hot_spot_of_no_area() -> None:
    """With --min-fraction 0, tiles of glass alone can be the high ones."""
    cells = cells_of(np.ones((5, 5), bool))
    glass = (cells[:, 0] == 4) & (cells[:, 1] > 1)
    spot = hot_spot(tile_scores(cells, np.where(glass, 9.0, 0.0), np.where(glass, 0.0, 1.0)), 0, 9.0)
    assert spot is not None and (spot.tiles, spot.area_mm2, spot.mean) == (3, 0, 9.0)
    assert spot.box_level0_px == (800, 400, 1000, 1000)


def test_tiles_without_any_tissue_count_the_same() -> None:
    assert usable_weights(np.zeros(3, np.float32)).tolist() == [1, 1, 1]
    assert usable_weights(np.array([0, 0.5], np.float32)).tolist() == [0, 0.5]
    cells = cells_of(np.ones((20, 20), bool))
    (found,) = summarise(tile_scores(cells, np.arange(400.0), np.zeros(400))).pathways
    assert found.mean == pytest.approx(199.5) and found.hot_spot is not None and found.hot_spot.area_mm2 == 0


def test_a_common_threshold_is_so_many_spreads_above_the_centre() -> None:
    assert common_thresholds((Scale(2.0, 3.0), None), 2.0) == [8.0, None]
