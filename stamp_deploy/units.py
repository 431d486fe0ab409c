"""The units that must not be mixed up."""

from __future__ import annotations

import math
from typing import NewType

Mpp = NewType("Mpp", float)
"""Microns per pixel."""

Level0Px = NewType("Level0Px", int)
"""A length or position in pixels of the slide's full-resolution level."""

TilePx = NewType("TilePx", int)
"""A length in pixels of a tile as the model sees it."""

MICRONS_PER_CM = 10_000.0
MICRONS_PER_INCH = 25_400.0

MIN_MPP, MAX_MPP = 0.05, 20.0
"""Microns per pixel outside this range are no resolution of a slide, whoever states them."""


def believable_mpp(mpp: float) -> bool:
    """Whether a number of microns per pixel can be a slide's, a tile's or a model's resolution."""
    return math.isfinite(mpp) and MIN_MPP <= mpp <= MAX_MPP
