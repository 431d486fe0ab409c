"""The hot-spot: the largest connected piece of tissue whose tiles score above a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .tile_scores import TileScores
from .weighted import usable_weights


@dataclass(frozen=True)
class HotSpot:
    """Where it is and how high.

    Attributes
    ----------
    area_mm2 : float
        Its tissue.
    tiles : int
    mean : float
        Mean score in it, weighted by tissue; in the unit of the scores.
    x_level0_px, y_level0_px : float
        Its centre, weighted by tissue. The centre of a ring lies in its hole.
    box_level0_px : (float, float, float, float)
        Left, top, right, bottom of the box around its tiles.
    """

    area_mm2: float
    tiles: int
    mean: float
    x_level0_px: float
    y_level0_px: float
    box_level0_px: tuple[float, float, float, float]


def hot_spot(tiles: TileScores, pathway: int, threshold: float) -> HotSpot | None:
    """The connected piece of most tissue among the tiles at or above `threshold`; None where no tile is.

    Tiles are connected where they share an edge; corners do not connect. Of equal pieces the upper left one is taken.
    The largest of many pieces is large by chance in part: it has no interval.
    """
    above = np.flatnonzero(tiles.values[:, pathway] >= threshold)
    if len(above) == 0:
        return None
    cells = tiles.cells[above]
    corner = cells.min(axis=0)
    wide, high = cells.max(axis=0) - corner + 1
    picture = np.zeros((high, wide), bool)
    where = cells[:, 1] - corner[1], cells[:, 0] - corner[0]
    picture[where] = True
    labels = ndimage.label(picture)[0][where]
    area = np.bincount(labels, tiles.tissue_mm2[above])[1:]  # pieces are numbered from 1
    piece = above[labels == 1 + int(area.argmax())]
    return _describe(tiles, piece, tiles.values[piece, pathway])


def _describe(tiles: TileScores, piece: NDArray[np.int64], values: NDArray[np.float64]) -> HotSpot:
    grid, weights = tiles.grid, usable_weights(tiles.weights[piece])
    corners = tiles.cells[piece] * np.array([grid.step_x, grid.step_y])
    span = np.array([grid.span_x, grid.span_y])
    x, y = weights @ (corners + span / 2) / weights.sum()
    left, top = corners.min(axis=0)
    right, bottom = np.minimum(corners.max(axis=0) + span, (grid.slide_width, grid.slide_height))
    return HotSpot(
        area_mm2=float(tiles.tissue_mm2[piece].sum()),
        tiles=len(piece),
        mean=float(weights @ values / weights.sum()),
        x_level0_px=float(x),
        y_level0_px=float(y),
        box_level0_px=(float(left), float(top), float(right), float(bottom)),
    )
