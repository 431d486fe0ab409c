"""Marker ink: as saturated as tissue, of other hues.

Haematoxylin and eosin run from blue-violet to pink, with red and blue above green in every pixel that is stained.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .components import dilate

INK_HALO_UM, INK_BORDER_UM = 160.0, 24.0


def ink_hues(
    red: NDArray[np.float32], green: NDArray[np.float32], blue: NDArray[np.float32], saturation: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Pixels with a hue of marker ink, uint8 [h, w], as bits: cool core and halo, warm core and halo, black.

    Green and blue ink have green well above red, which haematoxylin has only where it is pale. Red ink has as much
    blue as green and both far below red, where eosin and blood keep blue above green. Black ink is dark and grey.
    """
    span, lean = red - green, blue - green
    cool = (green > red + 8) & ((green > blue - 25) | (blue > red + 25))
    warm = (span > 8) & (np.abs(lean) < 0.36 * span)
    cool_core = cool & (saturation > 0.25) & (green > red + 16)
    warm_core = (saturation > 0.45) & (red > 110) & (span > 0.4 * red) & (np.abs(lean) < 0.12 * span)
    black = (np.maximum(red, np.maximum(green, blue)) < 90) & (saturation < 0.25)
    packed: NDArray[np.uint8] = np.packbits(
        [cool_core, cool & (saturation > 0.12), warm_core, warm, black], axis=0, bitorder="little"
    )[0]
    return packed


def find_ink(hues: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Marker ink, bool [h, w]: strokes of the core hues, the paler halo that touches them, and a border."""
    cool_core, cool_halo, warm_core, warm_halo, black = (1 << i for i in range(5))
    ink: NDArray[np.bool_] = ndimage.binary_opening(hues & (cool_core | warm_core | black) != 0)
    if not ink.any():
        return ink
    steps = max(2, round(INK_HALO_UM / mpp))
    for core, halo in ((cool_core, cool_halo), (warm_core, warm_halo)):
        seeds = ink & (hues & core != 0)
        if seeds.any():
            ink |= ndimage.binary_dilation(seeds, mask=hues & halo != 0, iterations=steps)
    return dilate(ink, max(2, round(INK_BORDER_UM / mpp)))
