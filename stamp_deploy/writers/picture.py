"""Pictures of score maps: the map blended over the slide, in microns, with a scale bar and a colour bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..maps import colour_range, value_map
from ..result import Result

COLOUR_MAP = "viridis"
OPACITY = 0.7
MAX_PICTURE_PX = 1000


@dataclass(frozen=True, eq=False)
class View:
    """The part of the slide that pictures show: the scored tiles with a margin.

    Attributes
    ----------
    picture : uint8 [h, w, 3]
        The thumbnail's crop.
    width_um, height_um : float
        What it covers, in microns.
    rows, columns : int64 [h], [w]
        The grid row and column under each picture pixel; -1 outside the grid.
    box : (x0, y0, x1, y1)
        What it covers, in level-0 pixels.
    """

    picture: NDArray[np.uint8]
    width_um: float
    height_um: float
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    box: tuple[float, float, float, float]


def make_view(result: Result, max_px: int = MAX_PICTURE_PX) -> View:
    """Crop the thumbnail to the scored tiles and one tile around them, and bring it to at most `max_px`."""
    from PIL import Image

    grid, slide = result.grid, result.slide
    high, wide = result.thumbnail.shape[:2]
    x0, y0, x1, y1 = 0.0, 0.0, float(slide.width), float(slide.height)
    if len(result.coords):
        x0, y0 = np.maximum(result.coords.min(axis=0) - (grid.span_x, grid.span_y), 0)
        x1, y1 = np.minimum(result.coords.max(axis=0) + 2 * np.array([grid.span_x, grid.span_y]), (x1, y1))
    left, right = math.floor(x0 * wide / slide.width), math.ceil(x1 * wide / slide.width)
    top, bottom = math.floor(y0 * high / slide.height), math.ceil(y1 * high / slide.height)
    crop = result.thumbnail[top:bottom, left:right]
    scale = max_px / max(crop.shape[:2])
    width_um = (right - left) * slide.width / wide * slide.mpp_x
    height_um = (bottom - top) * slide.height / high * slide.mpp_y
    size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
    picture = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.LANCZOS))
    x = (left + (np.arange(size[0]) + 0.5) * (right - left) / size[0]) * slide.width / wide
    y = (top + (np.arange(size[1]) + 0.5) * (bottom - top) / size[1]) * slide.height / high
    columns, rows = np.floor(x / grid.step_x).astype(np.int64), np.floor(y / grid.step_y).astype(np.int64)
    columns[columns >= grid.columns] = -1
    rows[rows >= grid.rows] = -1
    box = (
        left * slide.width / wide,
        top * slide.height / high,
        right * slide.width / wide,
        bottom * slide.height / high,
    )
    return View(picture, width_um, height_um, rows, columns, box)


@cache
def colour_table() -> NDArray[np.uint8]:
    """The colour map: uint8 [256, 3] RGB."""
    from matplotlib import colormaps

    return np.asarray(colormaps[COLOUR_MAP](np.arange(256), bytes=True))[:, :3]


class Painter:
    """Lays values over a view, many maps over the same one.

    The slide is pale grey under the map, so that colours read as in the colour bar; where there is no tile it
    keeps its own colours, paler. What all maps share is made once, so that a map costs a look-up and an addition.
    """

    def __init__(self, result: Result, view: View) -> None:
        self._result, self._view = result, view
        known = ~np.isnan(value_map(result, np.zeros(len(result.coords), np.float32)))
        here = known[view.rows[:, None], view.columns[None, :]]
        here &= (view.rows >= 0)[:, None] & (view.columns >= 0)[None, :]
        slide = view.picture.astype(np.float32)
        grey = 90 + slide.mean(axis=2, keepdims=True) * (165 / 255)
        self._here = here
        self._under = (
            np.where(here[..., None], (1 - OPACITY) * grey, 0.55 * slide + 0.45 * 255).round().astype(np.uint8)
        )
        # Entry 0 adds nothing, where there is no tile; the others are 255 steps of the colour map.
        steps = colour_table()[np.rint(np.linspace(0, 255, 255)).astype(np.int64)]
        self._colours = np.vstack([np.zeros(3), OPACITY * steps]).round().astype(np.uint8)

    def paint(self, values: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
        """The picture of one value a tile, coloured from `low` to `high`: uint8 [h, w, 3]."""
        cells = value_map(self._result, values)
        level = 1 + np.clip((cells - low) / (high - low), 0, 1) * 254
        index = np.where(np.isnan(level), 0, np.rint(level)).astype(np.uint8)
        shown = index[self._view.rows][:, self._view.columns]
        shown *= self._here
        picture = np.take(self._colours, shown, axis=0)
        picture += self._under
        return picture


def blend(result: Result, view: View, values: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """One map over a view: see `Painter`, which is quicker for many."""
    return Painter(result, view).paint(values, low, high)


def round_length_um(width_um: float) -> float:
    """The largest of 1, 2, 5 x 10^k microns that is at most a quarter of `width_um`."""
    if not width_um > 0:
        raise ValueError("the width must be above 0 microns")
    power = 10.0 ** math.floor(math.log10(width_um / 4))
    return max(step * power for step in (1, 2, 5) if step * power <= width_um / 4 * (1 + 1e-9))


def length_label(length_um: float) -> str:
    """ "500 µm", "2 mm"."""
    return f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"


def score_range(result: Result, index: int) -> tuple[float, float]:
    """The colour range of pathway number `index`: 1st to 99th percentile of its tiles."""
    return colour_range(result.pathways[:, index])
