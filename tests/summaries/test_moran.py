"""Moran's I against esda of PySAL, and on patterns whose value is known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from support.tile_fields import cells_of, tile_scores

from stamp_deploy.summaries.blocks import Blocks, make_blocks
from stamp_deploy.summaries.moran import morans_i
from stamp_deploy.summaries.neighbours import neighbour_pairs


def test_it_is_what_pysal_says(blob: np.ndarray) -> None:
    esda, weights = pytest.importorskip("esda"), pytest.importorskip("libpysal.weights")
    random = np.random.default_rng(3)
    cells = cells_of(blob)
    values = np.column_stack([random.normal(size=len(cells)), cells[:, 0] + random.normal(size=len(cells))])
    tiles = tile_scores(cells, values)
    mine, _ = morans_i(tiles, make_blocks(tiles))
    place = {tuple(cell): i for i, cell in enumerate(cells.tolist())}
    steps = ((1, 0), (-1, 0), (0, 1), (0, -1))
    neighbours = {i: [place[x + a, y + b] for a, b in steps if (x + a, y + b) in place] for (x, y), i in place.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        w = weights.W(neighbours)
        theirs = [esda.Moran(column, w, transformation="B", permutations=0).I for column in values.T]
    assert any(len(found) == 0 for found in neighbours.values())  # an island, too
    assert mine == pytest.approx(theirs)
    assert mine[1] > 0.5 > abs(mine[0])


def test_a_chessboard_is_minus_one_and_halves_are_near_one() -> None:
    cells = cells_of(np.ones((20, 20), bool))
    board = (cells.sum(axis=1) % 2).astype(float)
    halves = (cells[:, 0] >= 10).astype(float)
    values = np.column_stack([board, halves, np.full(400, 7.3)])
    tiles = tile_scores(cells, values)
    found, _ = morans_i(tiles, make_blocks(tiles))
    assert found[0] == pytest.approx(-1)
    assert found[1] == pytest.approx(1 - 2 * 20 / 760)  # 20 of 760 pairs cross the border
    assert np.isnan(found[2])


def test_pairs_do_not_run_on_into_the_next_row() -> None:
    cells = cells_of(np.ones((3, 4), bool))
    pairs = {tuple(sorted(map(tuple, cells[pair].tolist()))) for pair in neighbour_pairs(cells)}
    assert len(pairs) == 3 * 3 + 2 * 4
    assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in pairs)


def test_a_replicate_is_the_formula_over_the_tiles_and_pairs_of_the_drawn_blocks() -> None:
    """Three blocks of 3 x 2 tiles that differ far more than tiles within one, added up by hand."""
    cells = cells_of(np.ones((2, 9), bool))
    member = cells[:, 0] // 3
    random = np.random.default_rng(5)
    values = 1000.0 + 100.0 * member + random.normal(size=18)
    draws = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0], [0, 1, 2]], float)
    _, found = morans_i(tile_scores(cells, values), Blocks(3, 300.0, 3, member, draws))
    for row, drawn in zip(found[:, 0], draws, strict=True):
        times = drawn[member]
        mean = times @ values / times.sum()
        pairs = together = 0.0
        for i, (x, y) in enumerate(cells.tolist()):
            for j, (a, b) in enumerate(cells.tolist()):
                if (a - x, b - y) in ((1, 0), (0, 1)):  # a pair belongs to the block of its left or upper tile
                    pairs += times[i]
                    together += times[i] * (values[i] - mean) * (values[j] - mean)
        expected = times.sum() / pairs * together / (times @ (values - mean) ** 2)
        assert row == pytest.approx(expected, rel=1e-6)


def test_four_tiles_have_a_value_and_three_have_none() -> None:
    square = cells_of(np.ones((2, 2), bool))
    board = tile_scores(square, np.array([0.0, 1, 1, 0]))
    assert morans_i(board, make_blocks(board))[0].tolist() == [pytest.approx(-1)]
    three = tile_scores(square[:3], np.array([0.0, 1, 1]))
    assert np.isnan(morans_i(three, make_blocks(three))[0]).all()
