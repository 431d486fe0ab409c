"""Moran's I against esda of PySAL, and on patterns whose value is known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from support.tile_fields import cells_of, tile_scores

from stamp_deploy.summaries.blocks import make_blocks
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
