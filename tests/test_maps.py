"""Score maps on the grid."""

from __future__ import annotations

import numpy as np
import pytest
from support.result_factory import make_result

from stamp_deploy.errors import UsageError
from stamp_deploy.map_style import colour_range
from stamp_deploy.maps import score_map


def test_every_score_stands_in_its_cell_and_nothing_elsewhere() -> None:
    result = make_result(n_tiles=200, pathways=2)
    name = result.pathway_names[1]
    grid = score_map(result, name)
    assert grid.shape == (result.grid.rows, result.grid.columns)
    assert np.isfinite(grid).sum() == 200
    for i in (0, 77, 199):
        column, row = np.rint(result.coords[i] / (result.grid.step_x, result.grid.step_y)).astype(int)
        assert grid[row, column] == result.pathways[i, 1]


def test_unknown_pathway_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no pathway"):
        score_map(make_result(), "NOT_THERE")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([np.nan], (0.0, 1.0)), ([3.0, 3.0], (2.5, 3.5)), ([], (0.0, 1.0))],
)
def test_colour_range_of_little(values: list[float], expected: tuple[float, float]) -> None:
    assert colour_range(np.array(values)) == expected


def test_colour_range_ignores_one_odd_tile() -> None:
    values = np.append(np.linspace(0, 1, 999), 1e6)
    low, high = colour_range(values)
    assert 0 <= low < 0.02
    assert 0.98 < high <= 1.0
