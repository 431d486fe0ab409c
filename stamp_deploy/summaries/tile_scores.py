"""What summaries are made of: scores per tile with the tissue under each, and where the tiles lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..grid import Grid
from ..validation import Scale


@dataclass(frozen=True, eq=False)
class TileScores:
    """Scores of the tiles that a summary counts.

    Attributes
    ----------
    names : tuple of str
        Pathways.
    values : float64 [N, P]
    weights : float64 [N]
        Share of each tile that is tissue, 0 to 1; in a summary of a region, the share that is tissue of the region.
    cells : int64 [N, 2]
        (column, row) of each tile in the grid.
    grid : Grid
    scales : tuple of Scale or None
        How each pathway is put on the scale that all slides share.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    cells: NDArray[np.int64]
    grid: Grid
    scales: tuple[Scale | None, ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def cell_mm2(self) -> float:
        """The area that one tile stands for, mm2: that of a step of the grid, so that overlapping tiles are counted
        once. Without overlap it is the tile's own."""
        grid = self.grid
        return grid.step_x * grid.mpp_x * grid.step_y * grid.mpp_y / 1e6

    @property
    def tissue_mm2(self) -> NDArray[np.float64]:
        """Tissue that each tile stands for, mm2 [N]: the area of its cell times its tissue fraction."""
        return self.weights * self.cell_mm2

    @property
    def step_um(self) -> float:
        """Microns from a tile to its neighbour."""
        return self.grid.step_x * self.grid.mpp_x

    def pathways(self, chosen: Sequence[int]) -> TileScores:
        """The same tiles with some of the pathways."""
        names, scales = tuple(self.names[i] for i in chosen), tuple(self.scales[i] for i in chosen)
        return TileScores(names, self.values[:, list(chosen)], self.weights, self.cells, self.grid, scales)

    def of(self, chosen: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> TileScores:
        """The tiles that are `chosen` (bool [N]) alone; `weights` [N] take the place of the tissue fractions."""
        kept = self.weights if weights is None else weights
        return TileScores(self.names, self.values[chosen], kept[chosen], self.cells[chosen], self.grid, self.scales)


def common_thresholds(scales: Sequence[Scale | None], z: float) -> list[float | None]:
    """The score that is `z` on the common scale, per pathway; None where there is no such scale."""
    return [None if scale is None else scale.centre + z * scale.spread for scale in scales]
