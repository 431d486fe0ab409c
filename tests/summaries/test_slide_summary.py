"""Every figure of a summary on fields whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.result_factory import make_result
from support.tile_fields import cells_of, correlated_field, tile_scores

from stamp_deploy.summaries import RegionSummary, summarise, tissue_correlation
from stamp_deploy.summaries.blocks import MIN_BLOCKS, limits, make_blocks
from stamp_deploy.summaries.hot_spot import hot_spot
from stamp_deploy.summarise import add_summaries
from stamp_deploy.trust import SlideTrust, TileFlag
from stamp_deploy.validation import PathwayValidation, Scale, Validation

TILE_MM2 = 0.01
"""100 x 100 um."""


def test_area_above_is_tissue_in_mm2_and_a_share_of_it() -> None:
    cells = cells_of(np.ones((20, 20), bool))
    values = np.where(cells[:, 1] < 5, 3.0, 0.0)  # 100 tiles are high: z = (3 - 1) / 2 = 1
    weights = np.where(cells[:, 1] < 5, 0.5, 1.0)
    (found,) = summarise(tile_scores(cells, values, weights, scale=Scale(1.0, 2.0))).pathways
    assert (found.threshold, found.threshold_is) == (3.0, "common scale")
    assert found.area_above_mm2 == pytest.approx(100 * TILE_MM2 * 0.5)
    assert found.share_above == pytest.approx(50 / 350)
    assert found.mean_z == pytest.approx((3 * 50 / 350 - 1) / 2)
    (low,) = summarise(tile_scores(cells, values - 0.01, weights, scale=Scale(1.0, 2.0))).pathways
    assert (low.area_above_mm2, low.hot_spot) == (0, None)


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_overlapping_tiles_are_counted_once(mpp: float) -> None:
    cells = cells_of(np.ones((20, 20), bool))
    whole = summarise(tile_scores(cells, np.ones(400), scale=Scale(0, 1), overlap_px=100, mpp=mpp))
    assert whole.tissue_mm2 == pytest.approx(400 * 0.05**2)
    assert whole.pathways[0].area_above_mm2 == pytest.approx(whole.tissue_mm2)


def test_without_a_common_scale_no_area_is_stated() -> None:
    cells = cells_of(np.ones((20, 20), bool))
    (found,) = summarise(tile_scores(cells, np.arange(400.0))).pathways
    assert (found.area_above_mm2, found.share_above, found.share_above_interval, found.mean_z) == (None,) * 4
    assert found.threshold_is == "own percentile"
    assert found.hot_spot is not None
    assert found.hot_spot.tiles == 41  # at or above the 90th percentile: the last 41 tiles, in three rows


def test_the_hot_spot_is_the_largest_piece_and_corners_do_not_connect() -> None:
    cover = np.zeros((12, 12), bool)
    cover[0:3, 0:3] = True  # 9 tiles of 0.3: less tissue than the next piece
    cover[6:8, 6:9] = True  # 6 tiles of full tissue
    cover[8, 9] = True  # touches it by a corner
    cells = cells_of(np.ones((12, 12), bool))
    values = np.where(cover[cells[:, 1], cells[:, 0]], 4.0, 0.0)
    values[(cells[:, 0] == 6) & (cells[:, 1] == 6)] = 10.0
    weights = np.where((cells < 3).all(axis=1), 0.3, 1.0)
    spot = hot_spot(tile_scores(cells, values, weights), 0, 4.0)
    assert spot is not None
    assert (spot.tiles, spot.area_mm2, spot.mean) == (6, pytest.approx(6 * TILE_MM2), pytest.approx(5.0))
    assert spot.box_level0_px == (1200, 1200, 1800, 1600)
    assert (spot.x_level0_px, spot.y_level0_px) == (1500, 1400)


def test_intervals_cover_the_truth_where_tiles_are_not_independent() -> None:
    """120 fields of mean 0 for each length: intervals hold it about as often as docs/summaries.md says, those of single
    tiles far less often; and where tiles resemble each other over much of the slide there is none."""
    cells = cells_of(np.ones((40, 40), bool))
    for length, least, most_none in ((0.01, 0.85, 0.0), (1.0, 0.85, 0.0), (2.0, 0.75, 0.1), (8.0, 0.0, 1.0)):
        fields = np.column_stack([correlated_field(40, 40, seed, length).ravel() for seed in range(120)])
        spans = [item.mean_interval for item in summarise(tile_scores(cells, fields)).pathways]
        known = [span for span in spans if span is not None]
        assert len(spans) - len(known) <= most_none * 120
        held = sum(low <= 0 <= high for low, high in known) / max(len(known), 1)
        single = (np.abs(fields.mean(axis=0)) <= 1.96 * fields.std(axis=0, ddof=1) / 40).mean()
        assert held >= least
        if length >= 1:
            assert single < 0.6
        if length == 8:
            assert len(known) < 20


def test_intervals_are_the_same_every_time_and_need_blocks() -> None:
    cells = cells_of(np.ones((20, 20), bool))
    field = correlated_field(20, 20, 1, 1.0).ravel()
    tiles = tile_scores(cells, field, scale=Scale(0, 1))
    one, two = summarise(tiles), summarise(tiles)
    assert one == two
    (found,) = one.pathways
    for interval, value in (
        (found.mean_interval, found.mean),
        (found.sd_interval, found.sd),
        (found.share_above_interval, found.share_above),
        (found.morans_i_interval, found.morans_i),
    ):
        assert interval is not None and value is not None
        assert interval[0] < value < interval[1] + 0.1
    assert (found.reach_um, found.block_um, found.blocks, found.no_interval_because) == (300, 600, 16, "")
    few = summarise(tile_scores(cells_of(np.ones((4, 4), bool)), field[:16]))
    (small,) = few.pathways
    assert small.mean_interval is None
    assert small.blocks < MIN_BLOCKS and "blocks" in small.no_interval_because


def test_the_replicates_are_sums_of_whole_blocks() -> None:
    cells = cells_of(np.ones((20, 20), bool))
    tiles = tile_scores(cells, np.arange(400.0))
    blocks = make_blocks(tiles)
    assert (blocks.draws.sum(axis=1) == blocks.count).all()
    assert blocks.sums(np.ones((400, 1))) == pytest.approx(blocks.draws @ np.bincount(blocks.member)[:, None])


def test_scores_that_follow_the_tissue_are_told() -> None:
    random = np.random.default_rng(5)
    tissue = random.uniform(0.25, 1, 500)
    values = np.column_stack([-tissue, tissue**3, random.normal(size=500), np.ones(500)])
    rho = tissue_correlation(values, tissue)
    assert rho[:2] == [pytest.approx(-1), pytest.approx(1)]
    assert rho[2] is not None and abs(rho[2]) < 0.15
    assert rho[3] is None
    from scipy.stats import spearmanr

    ties = np.round(values[:, 2], 1)
    assert tissue_correlation(ties[:, None], tissue)[0] == pytest.approx(spearmanr(ties, tissue).statistic)
    assert tissue_correlation(values, np.ones(500)) == [None] * 4


def test_a_result_says_which_tiles_count_and_which_read_out() -> None:
    plain = make_result(n_tiles=400, pathways=2)
    flags = np.zeros(400, np.uint16)
    flags[:30] = TileFlag.BLURRED
    flags[30:50] = TileFlag.OVER_STAINED
    names = plain.pathway_names
    result = replace(
        plain,
        trust=SlideTrust("doubtful", tile_distance=np.zeros(400, np.float32), tile_flags=flags),
        pathways_global=np.full((400, 2), 5, np.float32),
        validation=Validation("z", tuple(PathwayValidation(n, scale_global=Scale(1, 2)) for n in names)),
    )
    whole = add_summaries(result).summaries[0]
    assert (whole.tiles, whole.tiles_left_out, whole.scores) == (370, 30, "pathways_global")
    assert whole.pathways[0].mean_z == pytest.approx(2)
    assert whole.tissue_mm2 == pytest.approx(result.tissue_fraction[30:].sum() * 0.112**2, rel=1e-5)
    within = add_summaries(plain).summaries[0]
    assert (within.tiles, within.scores, within.pathways[0].mean_z) == (400, "pathways", None)


def test_the_edge_effect_is_in_the_warnings() -> None:
    plain = make_result(n_tiles=400, pathways=2)
    scores = plain.pathways.copy()
    scores[:, 1] = -plain.tissue_fraction
    told = add_summaries(replace(plain, pathways=scores)).warnings[-1]
    assert "1 of 2 pathways" in told and "-1.00" in told and plain.pathway_names[1] in told
    assert add_summaries(plain).warnings == plain.warnings


def test_classes_have_summaries_of_their_own() -> None:
    result = make_result(n_tiles=400, pathways=1)
    left = result.coords[:, 0] < np.median(result.coords[:, 0])
    classes = {
        "Tumor": np.where(left, result.tissue_fraction, 0).astype(np.float32),
        "Touched": (result.tissue_fraction * 0.4).astype(np.float32),
    }
    whole, tumor, touched = add_summaries(result, classes).summaries
    assert (tumor.region, tumor.tiles) == ("Tumor", left.sum())
    want = np.average(result.pathways[left, 0], weights=result.tissue_fraction[left])
    assert tumor.pathways[0].mean == pytest.approx(want, rel=1e-5)
    assert (whole.tiles, touched.tiles, touched.pathways) == (400, 0, ())


def test_a_summary_comes_back_from_its_json() -> None:
    result = add_summaries(make_result(n_tiles=400, pathways=2))
    record = result.to_json_dict()["summaries"]
    assert tuple(map(RegionSummary.from_dict, record)) == result.summaries
    empty = summarise(tile_scores(np.empty((0, 2), np.int64), np.empty((0, 1))), left_out=3)
    assert RegionSummary.from_dict(empty.to_dict()) == empty
    assert (empty.tiles, empty.tiles_left_out, empty.pathways) == (0, 3, ())


def test_intervals_are_those_of_each_replicates_own_figures() -> None:
    """Every replicate is laid out tile by tile, and its mean, sd and share are taken of it."""
    cells = cells_of(np.ones((16, 16), bool))
    rng = np.random.default_rng(7)
    values, weights = 50 + 3 * rng.normal(size=256), rng.uniform(0.2, 1, 256)
    tiles = tile_scores(cells, values, weights, scale=Scale(49.0, 2.0))
    (found,) = summarise(tiles).pathways
    blocks = make_blocks(tiles)
    assert found.blocks == blocks.count and found.reach_um == 100 and found.block_um == 100 * blocks.side_tiles
    figures = []
    for drawn in blocks.draws:
        times = weights * drawn[blocks.member]
        mean = np.average(values, weights=times)
        sd = np.sqrt(np.average((values - mean) ** 2, weights=times))
        figures.append((mean, sd, times[values >= 51].sum() / times.sum()))
    expected = limits(np.array(figures), blocks.count)
    assert found.mean_interval == pytest.approx(expected[0])
    assert found.sd_interval == pytest.approx(expected[1])
    assert found.share_above_interval == pytest.approx(expected[2])
