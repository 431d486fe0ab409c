"""What a file leaves out, in numbers that a result tells: background, but not silently.

A sparse file leaves out glass. A scan or a copy that was broken off leaves out tissue, and looks the same: then the
absent area is large, or its straight edge runs along tissue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from .grid import Grid
from .slide import Slide
from .tissue import TissueMask

LARGE_SHARE = 0.25
"""Share of the slide from which on the absent area is worth a look."""
EDGE_UM = 100.0
"""So much tissue along the edge of what is absent is no coincidence, microns."""
_REACH_PX = 2


@dataclass(frozen=True)
class Absence:
    """What a slide's file leaves out.

    Attributes
    ----------
    tiles : int
        Tiles of the grid that lie in it, in part or whole.
    grid_tiles : int
        Tiles of the grid.
    share : float
        Share of the slide, 0 to 1.
    edge_um : float
        Length of its edge along tissue, microns.
    """

    tiles: int = 0
    grid_tiles: int = 0
    share: float = 0.0
    edge_um: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know."""
        if not self.tiles:
            return ()
        what = (
            f"the file holds nothing in {self.share:.1%} of the slide, which is taken as white background: "
            f"{self.tiles} of {self.grid_tiles} tiles lie there in part or whole"
        )
        if self.edge_um >= EDGE_UM:
            what += f"; its edge cuts tissue over {self.edge_um / 1000:.1f} mm: the scan or the file may be incomplete"
        elif self.share >= LARGE_SHARE:
            what += "; that is much of the slide: look at the overview"
        return (what,)


def leave_out(slide: Slide, grid: Grid, tissue: TissueMask | None) -> tuple[TissueMask | None, Absence]:
    """The tissue without what the file leaves out, and what that is."""
    area = slide.left_out
    if area is None:
        return tissue, Absence()
    rows, columns = np.divmod(np.arange(grid.columns * grid.rows), grid.columns)
    tiles = int(area.touched(grid.coords(columns, rows), grid.span_x, grid.span_y).sum())
    edge_um = 0.0
    if tissue is not None:
        absent = area.raster(tissue.mask.shape, tissue.scale_x, tissue.scale_y)
        near = ndimage.binary_dilation(absent, np.ones((3, 3), bool), iterations=_REACH_PX) & ~absent
        pixel_um = (tissue.scale_x * slide.mpp_xy[0] + tissue.scale_y * slide.mpp_xy[1]) / 2
        edge_um = float((near & tissue.mask).sum() / _REACH_PX * pixel_um)
        mask = tissue.mask & ~absent
        tissue = replace(tissue, mask=mask, fraction=float(mask.mean()))
    return tissue, Absence(tiles, grid.columns * grid.rows, area.share, edge_um)
