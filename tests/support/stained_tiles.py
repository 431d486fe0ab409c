"""Made-up tissue: nuclei of haematoxylin on eosin, with one patient's stain differing from another's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stamp_deploy.trust.statistics import UNMIX

STAINS = np.linalg.inv(UNMIX.astype(np.float64))


def stained_tiles(
    seed: int, count: int = 40, side: int = 64, *, haematoxylin: float = 1.0, eosin: float = 0.6, third: float = 0.0
) -> NDArray[np.uint8]:
    """uint8 [count, side, side, 3]."""
    rng = np.random.default_rng(seed)
    own = 1 + 0.05 * rng.normal(size=2)
    tiles = np.empty((count, side, side, 3), np.uint8)
    for tile in tiles:
        spots = ndimage.gaussian_filter(rng.normal(size=(side, side)), 2)
        nuclei = np.clip(spots / spots.std() - rng.uniform(0.3, 0.8), 0, 2) * haematoxylin * own[0] * 0.5
        fibres = (1 + 0.4 * ndimage.gaussian_filter(rng.normal(size=(side, side)), 1)) * eosin * own[1]
        amounts = np.stack([nuclei, np.clip(fibres, 0, None), np.full((side, side), third)], axis=-1)
        light = 256 * np.exp(-(amounts @ STAINS)) - 1 + rng.normal(0, 2, (side, side, 3))
        tile[:] = np.clip(light, 0, 255).round()
    return tiles
