"""Which tiles of two results are of one place, in microns of both directions; and what is told of the pair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.result_factory import make_head, make_result
from support.result_folders import slide_result

from stamp_deploy.comparison import compare_results, match_tiles, write
from stamp_deploy.grid import Grid
from stamp_deploy.result import Result


def on(grid: Grid, cells: list[tuple[int, int]], model: Result, **changes: Any) -> Result:
    """A result with one tile at each of these (column, row) of a grid; scores count the tiles up."""
    columns, rows = np.array(cells).T
    n = len(cells)
    return replace(
        model, grid=grid, coords=grid.coords(columns, rows), embedding=np.zeros((n, 16), np.float32),
        pathways=np.arange(n, dtype=np.float32)[:, None], tissue_fraction=np.ones(n, np.float32),
        tiles=replace(model.tiles, ok=n), heads=(), **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Result:
    return make_result(12, 1)


ROW = [(column, row) for row in range(3) for column in range(4)]


def test_a_distance_is_in_microns_of_either_direction(model: Result) -> None:
    """A pixel is 0.25 um wide and 0.5 um high; the second scan starts 8 px further left and 20 px further up."""
    grid = Grid(4000, 2000, 0.25, 0.5, 0.5, 200)
    one = on(grid, ROW, model)
    other = replace(one, coords=one.coords + np.array([8, 20]))
    tiles = match_tiles(one, other)
    assert tiles.first.tolist() == tiles.second.tolist() == list(range(12))
    np.testing.assert_allclose(tiles.distance_um, np.hypot(2, 10))
    assert tiles.limit_um == pytest.approx(50)  # half of a tile of 100 um, either way


def test_the_farthest_pair_is_told(model: Result) -> None:
    grid = Grid(4000, 4000, 0.5, 0.5, 0.5, 200)
    one = on(grid, ROW, model)
    away = np.zeros((12, 2), np.int64)
    away[5] = 30, 40
    found = compare_results(one, replace(one, coords=one.coords + away)).to_dict()["tiles"]
    assert found["largest_distance_um"] == pytest.approx(25)


def test_centres_are_matched_where_one_of_two_grids_overlaps(model: Result) -> None:
    """Tiles are 200 px wide in both; in one of them the next begins after 100 px."""
    one = on(Grid(4000, 4000, 0.5, 0.5, 0.5, 200), ROW, model)
    dense = Grid(4000, 4000, 0.5, 0.5, 0.5, 200, 100)
    other = on(dense, [(column, row) for row in range(7) for column in range(9)], model)
    tiles = match_tiles(one, other)
    assert len(tiles) == 12 and tiles.distance_um.max() == 0
    assert np.array_equal(one.coords[tiles.first], other.coords[tiles.second])
    assert (tiles.only_first, tiles.only_second, tiles.limit_um) == (0, 63 - 12, 25)


def test_of_two_tiles_as_near_to_a_larger_one_only_one_is_its_partner(model: Result) -> None:
    """Narrow tiles are 50 um wide; the centre of the wide one lies midway between two of them, 25 um from each."""
    narrow = on(Grid(4000, 4000, 0.5, 0.5, 0.5, 100), [(0, 0), (1, 0), (0, 1), (1, 1)], model)
    wide = on(Grid(4000, 4000, 0.5, 0.5, 0.5, 200), [(0, 0)], model)
    wide = replace(wide, coords=wide.coords - np.array([[0, 50]]))
    tiles = match_tiles(narrow, wide)
    assert tiles.limit_um == 25 and tiles.distance_um.tolist() == [25.0]
    assert tiles.first[0] in (0, 1) and tiles.second.tolist() == [0]
    assert (tiles.only_first, tiles.only_second) == (3, 0)


def test_of_one_slide_other_microns_per_pixel_move_nothing(model: Result) -> None:
    """--mpp was given to one of two runs: the same pixels are the same place."""
    one = on(Grid(4000, 4000, 0.5, 0.5, 0.5, 200), ROW, model)
    told = Grid(4000, 4000, 0.75, 0.75, 0.75, 200)
    assert (told.span_x, told.step_x) == (one.grid.span_x, one.grid.step_x)
    tiles = match_tiles(one, replace(one, grid=told))
    assert len(tiles) == 12 and tiles.distance_um.max() == 0


def test_calls_stand_side_by_side_each_with_its_own_value() -> None:
    one = slide_result("a.svs", [0.0] * 5)
    heads = (
        make_head("msi", 150, call="MSI-H", probabilities=(0.3, 0.7)),
        make_head("her2", 150, call="MSS", probabilities=(0.9, 0.1)),
        make_head("alone", 150),
    )
    others = (
        make_head("her2", 150, call="MSS", probabilities=(0.8, 0.2)),
        make_head("msi", 150, call="MSS", probabilities=(0.7, 0.3)),
    )
    calls = compare_results(replace(one, heads=heads), replace(one, heads=others)).calls()
    told = [(c["head"], c["first"], c["second"], c["first_value"], c["second_value"], c["same_call"]) for c in calls]
    assert told == [("msi", "MSI-H", "MSS", 0.7, 0.3, False), ("her2", "MSS", "MSS", 0.1, 0.2, True)]


@pytest.mark.parametrize("turned", [False, True])
def test_tiles_without_a_partner_are_a_share_of_their_own_result(model: Result, turned: bool) -> None:
    grid = Grid(4000, 4000, 0.5, 0.5, 0.5, 200)
    few, many = on(grid, ROW[:4], model), on(grid, ROW, model)
    found = compare_results(*((many, few) if turned else (few, many)))
    assert (found.tiles.only_second, found.tiles.only_first) == ((0, 8) if turned else (8, 0))
    (note,) = [note for note in found.notes if "no partner" in note]
    assert note.startswith("up to 67% of a result's tiles")


def test_a_doubtful_result_is_told_and_an_inside_one_is_not() -> None:
    one, doubtful = (slide_result("a.svs", [0.0] * 5, verdict) for verdict in ("inside", "doubtful"))
    reasons = "stained more strongly than any training section"
    assert compare_results(doubtful, one).notes == (f"the first result is doubtful: {reasons}",)
    assert compare_results(one, one).notes == ()


def test_maps_of_differences_are_drawn_of_the_matched_tiles_in_one_symmetric_range(
    model: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The farther of both limits counts, here the lower one; a tile's difference stays at its place."""
    grid = Grid(4000, 4000, 0.5, 0.5, 0.5, 200)
    one = on(grid, ROW, model)
    one = replace(one, tissue_fraction=np.linspace(0.1, 1, 12, dtype=np.float32))
    kept = [2, 3, 5, 7, 11]
    other = replace(on(grid, [ROW[i] for i in kept], model), pathways=np.float32([[-9.0], [-1.0], [0.0], [1.0], [2.0]]))
    drawn: list[tuple[Result, Any]] = []
    drawing = write.draw

    def noted(shown: Result, view: Any, style: Any, painter: Any) -> Any:
        drawn.append((shown, style))
        return drawing(shown, view, style, painter)

    monkeypatch.setattr(write, "draw", noted)
    found = compare_results(one, other)
    write.write_comparison(found, tmp_path / "out")
    ((shown, style),) = drawn
    assert np.array_equal(shown.coords, one.coords[kept])
    assert shown.tissue_fraction.tolist() == one.tissue_fraction[kept].tolist()
    difference = np.array([-9.0, -1, 0, 1, 2]) - kept
    assert shown.pathways[:, 0].tolist() == difference.tolist()
    low = difference.mean() - 1.96 * difference.std(ddof=1)
    high = difference.mean() + 1.96 * difference.std(ddof=1)
    assert -low > abs(high) and (style.low, style.high) == pytest.approx((low, -low))
