"""Which levels of a pyramid show the slide: the same shape and the same picture as the next finer one.

Files keep thumbnails, overviews and labels among their levels, and readers take them for one: by the tag that says
"reduced", or by their size. A level that shows something else would give a mask and scores of something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import COPY_AGAIN, SlideError
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
    backend: Backend, lacking: Mapping[int, str] | None = None, *, path: Path | None = None
) -> tuple[tuple[Level, ...], tuple[int, ...], tuple[str, ...]]:
    """Levels that show the slide.

    Parameters
    ----------
    backend : Backend
    lacking : dict of str, optional
        Levels that are known to lack a part of the slide, by their number, with the reason in words.
    path : Path, optional
        For the message.

    Returns
    -------
    levels : tuple of Level
        Numbered again from 0.
    numbers : tuple of int
        The number of each in the file.
    notes : tuple of str
        What was left out, and why.

    Raises
    ------
    SlideError
        The coarser levels agree with each other and none with the full resolution, or one is larger than it: then it
        is the full resolution that is wrong.
    """
    kept, odd, notes = [backend.levels[0]], [], []
    for level in backend.levels[1:]:
        lack = (lacking or {}).get(level.index)
        reason = lack or _why_not(backend, level, kept[0], kept[-1])
        if reason is None:
            kept.append(level)
        else:
            odd += [level] if lack is None else []
            notes.append(f"level {level.index} ({level.width} x {level.height} px) {reason}, and is not used")
    _check_full(path, backend, odd, is_alone=len(kept) == 1)
    levels = tuple(replace(level, index=i) for i, level in enumerate(kept))
    return levels, tuple(level.index for level in kept), tuple(notes)


def _check_full(path: Path | None, backend: Backend, odd: Sequence[Level], *, is_alone: bool) -> None:
    """Refuse a full resolution that the levels contradict; `odd` are those that do not fit it."""
    full = backend.levels[0]
    what = f"its full resolution of {full.width} x {full.height} px"
    for level in odd:
        if level.width > full.width and level.height > full.height and same_shape(full, level):
            raise SlideError(
                f"its level {level.index} of {level.width} x {level.height} px is larger than {what}",
                path=path,
                remedy="export the slide again with its full resolution first",
            )
    pairs = [(a, b) for i, a in enumerate(odd) for b in odd[i + 1 :]] if is_alone else []
    for finer, level in pairs:
        if not same_shape(finer, level) or level.width >= finer.width:
            continue
        seen, differ = _compare(backend, level, finer)
        if seen and differ * 4 <= seen:
            raise SlideError(
                f"its levels {finer.index} and {level.index} agree with each other, and not with {what}",
                path=path,
                remedy=COPY_AGAIN,
            )


def same_shape(full: Level, level: Level) -> bool:
    """Whether two levels have the same proportions, but for rounding."""
    x, y = full.width / level.width, full.height / level.height
    return abs(x - y) <= ASPECT_TOLERANCE * max(x, y) + max(x, y) * 2 / min(level.width, level.height)


def _why_not(backend: Backend, level: Level, full: Level, finer: Level) -> str | None:
    if not same_shape(full, level):
        return "has another shape than the slide"
    if level.width >= finer.width:
        return "is no smaller than the one before it"
    seen, differ = _compare(backend, level, finer)
    return "shows another picture than the slide" if differ * 4 > seen else None


def _compare(backend: Backend, level: Level, finer: Level) -> tuple[int, int]:
    """At how many spots there is something to see, and at how many of them two levels differ.

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
            break
    return seen, differ


def _blocks(rgb: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float64]:
    """Means of `rows` x `columns` blocks of a spot, float64 [rows, columns, 3]."""
    bands = np.array_split(rgb.astype(np.float64), rows, axis=0)
    return np.array([[cell.mean(axis=(0, 1)) for cell in np.array_split(band, columns, axis=1)] for band in bands])
