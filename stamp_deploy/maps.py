"""Score maps: one value per grid cell, NaN where the slide has no scored tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .result import Result


def value_map(result: Result, values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Lay one value per tile out on the grid.

    Parameters
    ----------
    values : float [N]
        One value per tile, in the result's order.

    Returns
    -------
    float32 [rows, columns]
        Row-major, NaN where no tile was scored. Cell (r, c) covers level-0 pixels from
        (c * step_x, r * step_y), span_x wide and span_y high.
    """
    cells = result.tile_cells
    grid = np.full((result.grid.rows, result.grid.columns), np.nan, np.float32)
    grid[cells[:, 1], cells[:, 0]] = values
    return grid


def score_map(result: Result, pathway: str) -> NDArray[np.float32]:
    """The map of one pathway: float32 [rows, columns], NaN where no tile was scored.

    Raises
    ------
    UsageError
        The result has no such pathway.
    """
    if pathway not in result.pathway_names:
        raise UsageError(f"no pathway {pathway!r} in this result", remedy=f"one of: {', '.join(result.pathway_names)}")
    return value_map(result, result.pathways[:, result.pathway_names.index(pathway)])
