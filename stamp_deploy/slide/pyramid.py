"""Which levels of a pyramid show the slide: the same shape and the same picture as the next finer one.

Files keep thumbnails, overviews and labels among their levels, and readers take them for one: by the tag that says
"reduced", or by their size. A level that shows something else would give a mask and scores of something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import SlideError
from .backends import Backend, Level

ASPECT_TOLERANCE = 0.03
"""Beyond a pixel of rounding: levels of overlapping fields and of padded storage tiles differ a little."""
SPOT_PX, SPOTS, BLOCK_PX = 32, 4, 8
"""Side of a spot and spots a side of the level; pixels of the level that are averaged before they are compared."""
ENOUGH = 5
_ORDER = (5, 10, 9, 6, 0, 15, 3, 12, 1, 14, 2, 13, 4, 11, 7, 8)
"""From the middle, where tissue lies, to the corners and borders."""
MAX_DIFFERENCE = 32.0
"""Mean difference of two pictures of one spot, grey levels: resampling, sharpening and coding stay far below."""


def levels_of_the_slide(
    backend: Backend, lacking: Mapping[int, str] | None = None
) -> tuple[tuple[Level, ...], tuple[int, ...], tuple[str, ...]]:
    """Levels that show the slide.

    Parameters
    ----------
    backend : Backend
    lacking : dict of str, optional
        Levels that are known to lack a part of the slide, by their number, with the reason in words.

    Returns
    -------
    levels : tuple of Level
        Numbered again from 0.
    numbers : tuple of int
        The number of each in the file.
    notes : tuple of str
        What was left out, and why.
    """
    kept, notes = [backend.levels[0]], []
    for level in backend.levels[1:]:
        reason = (lacking or {}).get(level.index) or _why_not(backend, level, kept[0], kept[-1])
        if reason is None:
            kept.append(level)
        else:
            notes.append(f"level {level.index} ({level.width} x {level.height} px) {reason}, and is not used")
    levels = tuple(replace(level, index=i) for i, level in enumerate(kept))
    return levels, tuple(level.index for level in kept), tuple(notes)


def _why_not(backend: Backend, level: Level, full: Level, finer: Level) -> str | None:
    x, y = full.width / level.width, full.height / level.height
    if abs(x - y) > ASPECT_TOLERANCE * max(x, y) + max(x, y) * 2 / min(level.width, level.height):
        return "has another shape than the slide"
    if level.width >= finer.width:
        return "is no smaller than the one before it"
    return "shows another picture than the slide" if _another_picture(backend, level, finer) else None


def _another_picture(backend: Backend, level: Level, finer: Level) -> bool:
    """Whether at more than a quarter of the spots where there is something to see, two levels differ.

    The first ENOUGH such spots decide where all of them agree.
    """
    seen = differ = 0
    side = min(SPOT_PX, level.width, level.height)
    step_x, step_y = level.width / finer.width, level.height / finer.height
    for spot in _ORDER:
        row, column = divmod(spot, SPOTS)
        x, y = (int((size - side) * (i + 0.5) / SPOTS) for size, i in ((level.width, column), (level.height, row)))
        x0, y0 = round(x * level.downsample_x), round(y * level.downsample_y)
        try:
            coarse = backend.read(level.index, x0, y0, side, side)
            fine = backend.read(finer.index, x0, y0, max(1, round(side / step_x)), max(1, round(side / step_y)))
        except SlideError:
            continue  # damage is for the budget of unreadable tiles
        rows, columns = (min(SPOT_PX // BLOCK_PX, a, b) for a, b in zip(coarse.shape[:2], fine.shape[:2], strict=True))
        one, two = (_blocks(picture, rows, columns) for picture in (coarse, fine))
        distance = np.abs(one - two).mean()
        contrast = max(picture.std(axis=(0, 1)).max() for picture in (one, two))
        seen += bool(distance > MAX_DIFFERENCE or contrast > MAX_DIFFERENCE / 4)
        differ += bool(distance > MAX_DIFFERENCE)
        if differ == 0 and seen == ENOUGH:
            return False
    return differ * 4 > seen


def _blocks(rgb: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float64]:
    """Means of `rows` x `columns` blocks of a spot, float64 [rows, columns, 3]."""
    bands = np.array_split(rgb.astype(np.float64), rows, axis=0)
    return np.array([[cell.mean(axis=(0, 1)) for cell in np.array_split(band, columns, axis=1)] for band in bands])
