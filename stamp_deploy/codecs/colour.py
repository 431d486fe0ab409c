"""libjpeg's conversion of colours, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ycbcr_to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """libjpeg's integer conversion, uint8 [..., 3]."""
    y, b, r = (pixels[..., c].astype(np.int32) - (128 if c else 0) for c in range(3))
    out = np.empty(pixels.shape, np.uint8)
    out[..., 0] = np.clip(y + ((91881 * r + 32768) >> 16), 0, 255)
    out[..., 1] = np.clip(y + ((-22554 * b - 46802 * r + 32768) >> 16), 0, 255)
    out[..., 2] = np.clip(y + ((116130 * b + 32768) >> 16), 0, 255)
    return out
