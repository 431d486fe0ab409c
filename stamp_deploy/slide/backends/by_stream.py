"""A reader for slides whose colour tag contradicts their JPEG streams: OpenSlide and libvips believe the tag.

It converts what another reader took for RGB; the other way round, what was converted for nothing cannot be had back.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from ...codecs.colour import ycbcr_to_rgb
from .base import Backend


class Recoloured:
    """Converts YCbCr that another backend took for RGB, at the given levels; leaves the rest to it.

    Parameters
    ----------
    inner : Backend
    wrong : collection of int
        Numbers of those levels in the file.
    """

    def __init__(self, inner: Backend, wrong: Collection[int]) -> None:
        self._inner, self._wrong = inner, frozenset(wrong)
        self.name, self.vendor = inner.name, inner.vendor
        self.levels, self.properties = inner.levels, inner.properties
        self.transparent: NDArray[np.bool_] | None = None

    def forget(self) -> None:
        self._inner.forget()

    def close(self) -> None:
        self._inner.close()

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """RGB of a region (see Backend.read)."""
        pixels = self._inner.read(level, x, y, w, h)
        self.transparent = self._inner.transparent
        if level not in self._wrong:
            return pixels
        spec = self.levels[level]
        rows = np.arange(h) + round(y / spec.downsample_y)
        columns = np.arange(w) + round(x / spec.downsample_x)
        outside = ((rows < 0) | (rows >= spec.height))[:, None] | (columns < 0) | (columns >= spec.width)
        if self.transparent is not None:
            outside |= self.transparent
        out = ycbcr_to_rgb(pixels)
        out[outside] = 255
        return out
