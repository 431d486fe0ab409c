"""What is measured of a tile: ten statistics of stain, focus and saturation, and four shares of odd pixels.

The ten decide whether a slide looks like the training tiles. Measured on her2st (sections of one patient as reference,
two other sections as test): together as one Mahalanobis distance they find blur of sigma 1, a wrong resolution, another
stain and another scanner, which embeddings of two models mostly miss; docs/trust.md has the table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _tiler

RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities of haematoxylin, eosin and DAB in R, G, B (Ruifrok & Johnston 2001)."""
UNMIX = np.linalg.inv(RUIFROK / np.linalg.norm(RUIFROK, axis=1, keepdims=True)).astype(np.float32)
"""Optical density (R, G, B) -> concentrations: float32 [3, 3]."""
DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
"""Optical density of each 8-bit value."""

STATISTICS = (
    "haematoxylin mean", "haematoxylin deviation", "eosin mean", "eosin deviation", "residual mean",
    "residual deviation", "sharpness", "sharpness for its contrast", "saturation", "brightness",
)  # fmt: skip
"""The ten, in the order of `measure_tiles`.

Sharpness is the log variance of the Laplacian; for its contrast: the log of that variance over the mean squared
gradient, which does not fall where there is less to see (Pertuz et al. 2013 compare such measures). Saturation is the
mean of (max - min) / max over R, G, B; brightness the mean of the brightest channel.
"""
SHARES = ("ink", "black", "coloured", "hue of H&E")
MEASURES = (*STATISTICS, *SHARES)
"""`STATISTICS`, then shares of pixels: of a hue that marker ink has; dark and grey; coloured; and of the coloured ones
those whose least channel is green, as haematoxylin and eosin leave it."""
MIN_TILE_PX = 16
"""Of smaller tiles nothing can be said."""
_FAINT = 1e-3
"""Added to variances of grey levels before the logarithm: a flat tile has none."""


def measure_tiles(tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
    """`MEASURES` of each tile: float64 [N, 14] for RGB tiles uint8 [N, T, T, 3].

    Colour is measured on a lattice of at most 80 x 80 pixels over the whole tile, focus on the 112 x 112 in its middle.
    """
    found = _tiler.tile_statistics(np.ascontiguousarray(tiles), DENSITY, UNMIX)
    laplacian, gradient = found[:, 6] + _FAINT, found[:, 7] + _FAINT
    found[:, 7] = np.log(laplacian / gradient)
    found[:, 6] = np.log(laplacian)
    return found
