"""Several fields of view around a spot: squares cut from the middle of one tile, each brought to the model's size.

A field is cut and resized by two fixed matrices (antialiased bilinear weights, as PIL's), so that training, the
exported graph and every engine compute the same: the graph holds plain matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def resize_matrix(before: int, after: int) -> Tensor:
    """Weights float32 [after, before] that resize a row of pixels; each row sums to 1."""
    rows = functional.interpolate(
        torch.eye(before)[None, None], size=(after, before), mode="bilinear", antialias=True, align_corners=False
    )
    return rows[0, 0]


class Fields(nn.Module):
    """Tiles [N, C, T, T] -> their fields of view, each [N, C, V, V].

    Parameters
    ----------
    sides : sequence of int
        Sides of the fields in the tile's pixels.
    view : int
        V, the side that the backbone sees.
    """

    def __init__(self, sides: Sequence[int], view: int) -> None:
        super().__init__()
        self.sides, self.view = tuple(sides), view
        for i, side in enumerate(self.sides):
            self.register_buffer(f"weights{i}", resize_matrix(side, view), persistent=False)

    def forward(self, tiles: Tensor, field: int) -> Tensor:
        """One field of the tiles: [N, C, V, V]."""
        side, have = self.sides[field], tiles.shape[-1]
        first = (have - side) // 2
        cut = tiles[:, :, first : first + side, first : first + side]
        if side == self.view:
            return cut
        weights = self.get_buffer(f"weights{field}").to(cut.dtype)
        return weights @ cut @ weights.T
