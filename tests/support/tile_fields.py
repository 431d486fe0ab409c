"""Score fields for tests of summaries: tiles on a grid with known scores and tissue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stamp_deploy.grid import Grid
from stamp_deploy.summaries import TileScores
from stamp_deploy.validation import Scale


def cells_of(cover: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(column, row) of each true cell, row-major: int64 [N, 2]."""
    rows, columns = np.nonzero(cover)
    return np.column_stack([columns, rows]).astype(np.int64)


def tile_scores(
    cells: NDArray[np.int64],
    values: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    *,
    scale: Scale | None = None,
    overlap_px: int = 0,
    mpp: float = 0.5,
) -> TileScores:
    """Tiles of 200 px at 0.5 um/px, 100 um wide, on a slide of `mpp` that holds them all."""
    values = values if values.ndim == 2 else values[:, None]
    step_px = (200 - overlap_px) * 0.5 / mpp
    size = [int((n + 2) * step_px) for n in (cells.max(axis=0) if len(cells) else (1, 1))]
    names = tuple(f"P{i + 1}" for i in range(values.shape[1]))
    given = np.ones(len(cells)) if weights is None else weights
    grid = Grid(size[0], size[1], mpp, mpp, 0.5, 200, overlap_px)
    return TileScores(names, values, given, cells, grid, (scale,) * len(names))


def correlated_field(rows: int, columns: int, seed: int, length: float) -> NDArray[np.float64]:
    """White noise smoothed over `length` cells, without a border: mean 0 and sd 1 in expectation."""
    pad = int(4 * length) + 1
    noise = np.random.default_rng(seed).normal(size=(rows + 2 * pad, columns + 2 * pad))
    x = np.arange(-pad, pad + 1)
    kernel = np.exp(-(x**2) / (2 * length**2))
    kernel /= np.sqrt((kernel**2).sum())
    smooth = ndimage.convolve1d(ndimage.convolve1d(noise, kernel, axis=0), kernel, axis=1)
    field: NDArray[np.float64] = smooth[pad:-pad, pad:-pad]
    return field
