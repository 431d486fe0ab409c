"""MINT's second ingredient: scores of the places within a tile, read from its patch tokens.

MINT regresses single patches where a platform measures finely (Xenium), and whole spots elsewhere. Here every measured
place of the section whose centre lies within a tile speaks for the patch that it lies in: of an array with wide pitch
that is the spot itself alone, of bins of a few microns it is every patch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..augment import turn
from ..losses import regression_loss
from .ingredient import Ingredient, Seen

TABLE = "patches"


class PatchRegression(Ingredient):
    """Term ``patches``: smooth L1 of a linear read-out of patch tokens, over patches with a measured place.

    Parameters
    ----------
    width, pathways, prefix : int
        W of the tokens, P, and how many tokens come before the patches.
    """

    def __init__(self, width: int, pathways: int, prefix: int) -> None:
        super().__init__()
        self.readout = nn.Linear(width, pathways)
        self.prefix = prefix

    def forward(self, seen: Seen) -> dict[str, Tensor]:
        """The term."""
        assert seen.tokens is not None
        wanted = seen.tables[TABLE].flatten(1, 2)  # [N, patches, P]
        known = ~wanted.isnan() & seen.mask[:, None]
        made = self.readout(seen.tokens[:, self.prefix :].float())
        shape = (-1, wanted.shape[2])
        loss = regression_loss(made.reshape(shape), wanted.nan_to_num().reshape(shape), known.reshape(shape))
        return {"patches": loss}


def patch_rows(xy_um: NDArray[np.floating], tile_um: float, patches: int) -> NDArray[np.int64]:
    """The row of the place that lies in each patch of each spot's tile: int64 [N, patches, patches], -1 for none.

    Of several places in a patch, the one nearest to the patch's centre.

    Parameters
    ----------
    xy_um : float [N, 2]
        Places in microns.
    tile_um : float
        Side of the tile.
    patches : int
        Patches along a side.
    """
    from scipy.spatial import cKDTree

    n = len(xy_um)
    out = np.full((n, patches, patches), -1, np.int64)
    nearest = np.full(out.shape, np.inf)
    tree = cKDTree(xy_um)
    patch_um = tile_um / patches
    for i, around in enumerate(tree.query_ball_point(xy_um, tile_um / np.sqrt(2))):
        rows = np.array(sorted(around))
        offset = (xy_um[rows] - xy_um[i] + tile_um / 2) / patch_um
        cell = np.floor(offset).astype(np.int64)
        inside = ((cell >= 0) & (cell < patches)).all(axis=1)
        far = np.square(offset - cell - 0.5).sum(axis=1)
        for row, (x, y), distance in zip(rows[inside], cell[inside], far[inside], strict=True):
            if distance < nearest[i, y, x]:
                out[i, y, x], nearest[i, y, x] = row, distance
    return out


def turn_together(tiles: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Tiles [N, C, T, T] and maps [N, g, g, P] of them, each under a flip or turn of its own."""
    which = torch.randint(0, 8, (len(tiles),), device=tiles.device)
    out, turned = torch.empty_like(tiles), maps.clone()
    for k in range(8):
        rows = which == k
        if bool(rows.any()):
            out[rows] = turn(tiles[rows], k)
            turned[rows] = turn(maps[rows].permute(0, 3, 1, 2), k).permute(0, 2, 3, 1)
    return out, turned
