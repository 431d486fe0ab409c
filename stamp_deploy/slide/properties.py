"""The few vendor fields that leave a file: numbers and fixed words, never free text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from .numbers import magnification, number

Bounds = tuple[int, int, int, int]
"""x, y, width, height, level-0 pixels."""

_NUMBERS = re.compile(
    r"openslide\.(mpp-[xy]|level-count|level\[\d+\]\.(downsample|height|width|tile-(width|height))"
    r"|bounds-(x|y|width|height))"
    r"|aperio\.(MPP|OriginalWidth|OriginalHeight)|tiff\.[XY]Resolution"
)
_POWERS = ("openslide.objective-power", "aperio.AppMag")
_UNITS = ("none", "inch", "centimeter")
_VENDOR = re.compile(r"[a-z][a-z0-9-]{0,30}")


def public_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """Of a file's metadata, what cannot name a patient: sizes, resolutions, magnifications, the vendor's name.

    A field for a number that holds anything else is left out: scanners let people write into them.
    """
    return {key: value for key, value in sorted(properties.items()) if _is_public(key, value)}


def _is_public(key: str, value: str) -> bool:
    if key in _POWERS:
        return math.isfinite(magnification(value))
    if key == "openslide.vendor":
        return _VENDOR.fullmatch(value) is not None
    if key == "tiff.ResolutionUnit":
        return value in _UNITS
    return _NUMBERS.fullmatch(key) is not None and math.isfinite(number(value))


def scanned_bounds(properties: Mapping[str, str]) -> Bounds | None:
    """The box that holds everything scanned, level-0 pixels; None where the file states none.

    Leica SCN and MIRAX state it: their level 0 is the whole glass, of which most was never scanned.
    """
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return None
    return (x, y, width, height) if width > 0 and height > 0 else None
