"""How far tiles resemble each other, on fields whose autocorrelation is known."""

from __future__ import annotations

import numpy as np
import pytest
from support.tile_fields import cells_of, correlated_field, tile_scores

from stamp_deploy.summaries import summarise
from stamp_deploy.summaries.reach import FADED, reaches


@pytest.mark.parametrize("length", [0.01, 1.0, 2.0, 3.0])
def test_the_reach_is_where_the_correlation_has_faded(length: float) -> None:
    """Noise smoothed by a Gaussian of sd s has the autocorrelation exp(-h^2 / (4 s^2))."""
    cells = cells_of(np.ones((120, 120), bool))
    (found,) = reaches(tile_scores(cells, correlated_field(120, 120, 3, length).ravel()))
    true = max(1.0, 2 * length * np.sqrt(np.log(1 / FADED)))
    assert 0.75 * true <= found <= 1.35 * true + 1


def test_patterns_of_the_slides_size_leave_no_interval_and_others_their_own() -> None:
    cells = cells_of(np.ones((40, 40), bool))
    random = np.random.default_rng(0)
    values = np.column_stack([cells[:, 0].astype(float), random.normal(size=1600), np.full(1600, 2.0)])
    slope, noise, flat = summarise(tile_scores(cells, values)).pathways
    assert slope.mean_interval is None and "resemble each other" in slope.no_interval_because
    assert noise.mean_interval is not None and noise.reach_um == 100
    assert noise.mean_interval[0] < noise.mean < noise.mean_interval[1]
    assert flat.mean_interval == (2.0, 2.0)


def test_lone_tiles_have_no_reach() -> None:
    cells = np.array([[0, 0], [5, 7], [11, 3]], np.int64)
    assert reaches(tile_scores(cells, np.array([1.0, 2, 3]))) == [1]
