"""Pictures of score maps: the map blended over the slide, in microns, with a scale bar and a colour bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..maps import colour_range, value_map
from ..result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR_MAP = "viridis"
OPACITY = 0.7
MAX_PICTURE_PX = 1200
INK = "#222222"
QUIET = "#6b6b6b"


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


def colour_table() -> NDArray[np.uint8]:
    """The colour map: uint8 [256, 3] RGB."""
    from matplotlib import colormaps

    return np.asarray(colormaps[COLOUR_MAP](np.arange(256), bytes=True))[:, :3]


def blend(result: Result, view: View, values: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """Lay one value a tile over the view: uint8 [h, w, 3].

    The slide is pale grey under the map, so that colours read as in the colour bar; where there is no tile it
    keeps its own colours, paler.
    """
    cells = value_map(result, values)
    level = np.clip((cells - low) / (high - low), 0, 1) * 255
    index = np.where(np.isnan(level), 0, level).astype(np.uint8)
    known = ~np.isnan(cells)
    here = known[view.rows[:, None], view.columns[None, :]]
    here &= (view.rows >= 0)[:, None] & (view.columns >= 0)[None, :]
    colours = colour_table()[index[view.rows[:, None], view.columns[None, :]]].astype(np.float32)
    slide = view.picture.astype(np.float32)
    grey = 90 + slide.mean(axis=2, keepdims=True) * (165 / 255)
    mapped = OPACITY * colours + (1 - OPACITY) * grey
    pale = 0.55 * slide + 0.45 * 255
    return np.asarray(np.where(here[..., None], mapped, pale).round(), np.uint8)


def round_length_um(width_um: float) -> float:
    """The largest of 1, 2, 5 x 10^k microns that is at most a quarter of `width_um`."""
    if not width_um > 0:
        raise ValueError("the width must be above 0 microns")
    power = 10.0 ** math.floor(math.log10(width_um / 4))
    return max(step * power for step in (1, 2, 5) if step * power <= width_um / 4 * (1 + 1e-9))


def length_label(length_um: float) -> str:
    """ "500 µm", "2 mm"."""
    return f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"


def frame(axes: Axes, view: View) -> None:
    """Axes in microns, y downwards, without ticks, in a thin frame."""
    axes.set_xlim(0, view.width_um)
    axes.set_ylim(view.height_um, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#d0d0d0")
        spine.set_linewidth(0.6)


def draw_picture(axes: Axes, view: View, picture: NDArray[np.uint8]) -> None:
    """Show a picture in microns in a frame, filling the axes' width or height."""
    axes.imshow(picture, extent=(0, view.width_um, view.height_um, 0), interpolation="antialiased", aspect="equal")
    frame(axes, view)


def draw_scale_bar(axes: Axes, view: View, *, font_pt: float, offset_px: float = 14) -> None:
    """A bar of a round length below the picture's lower left corner, its length written beside it."""
    from matplotlib.transforms import ScaledTranslation

    length = round_length_um(view.width_um)
    figure = axes.figure
    below = axes.transData + ScaledTranslation(0, -offset_px / 100, figure.dpi_scale_trans)
    axes.plot(
        [0, length],
        [view.height_um] * 2,
        color=INK,
        lw=3,
        solid_capstyle="butt",
        transform=below,
        clip_on=False,
    )
    beside = below + ScaledTranslation(0.08, 0, figure.dpi_scale_trans)
    axes.text(
        length,
        view.height_um,
        length_label(length),
        transform=beside,
        color=INK,
        fontsize=font_pt,
        ha="left",
        va="center",
    )


def score_range(result: Result, index: int) -> tuple[float, float]:
    """The colour range of pathway number `index`: 1st to 99th percentile of its tiles."""
    return colour_range(result.pathways[:, index])
