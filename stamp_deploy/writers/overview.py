"""overview.png, overview-2.png ...: the slide and its maps side by side, for a first look."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import shorten, wrap
from typing import TYPE_CHECKING

import numpy as np

from ..result import Result
from .names import display_name
from .picture import COLOUR_MAP, INK, OPACITY, QUIET, View, blend, draw_picture, draw_scale_bar, make_view, score_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 100
_PANEL_PX = 430
MAPS_PER_PAGE = 19
"""With the slide itself, 20 panels: 50 pathways fill three pages."""


def write(result: Result, directory: Path) -> list[Path]:
    """Write the overview sheets, `MAPS_PER_PAGE` pathways each, in the bundle's order."""
    view = make_view(result, 640)
    count = len(result.pathway_names)
    pages = max(1, math.ceil(count / MAPS_PER_PAGE))
    # Even pages: 20 maps make 10 + 10, not 19 + 1.
    size = math.ceil(count / pages)
    written = []
    for page in range(pages):
        path = directory / ("overview.png" if page == 0 else f"overview-{page + 1}.png")
        indices = range(page * size, min(count, (page + 1) * size))
        figure = draw(result, view, list(indices), page + 1, pages)
        figure.savefig(path, format="png", metadata={"Software": None})
        written.append(path)
    return written


def draw(result: Result, view: View, indices: list[int], page: int, pages: int) -> Figure:
    """One sheet: a heading, the slide, and one panel a pathway with its own colour bar."""
    from matplotlib.figure import Figure

    aspect = float(np.clip(view.height_um / view.width_um, 0.25, 3))
    panels = len(indices) + 1
    columns = _columns(panels, aspect)
    rows = math.ceil(panels / columns)
    wide = _PANEL_PX
    high = round(_PANEL_PX * aspect)
    gap_x, side, head, foot, over, under = 48, 40, 116, 64, 62, 84
    width = 2 * side + columns * wide + (columns - 1) * gap_x
    height = head + rows * (over + high + under) + foot
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    _heading(figure, result, side / width, width, height, page, pages)
    for place in range(panels):
        row, column = divmod(place, columns)
        left = side + column * (wide + gap_x)
        bottom = height - head - row * (over + high + under) - over - high
        box = (left / width, bottom / height, wide / width, high / height)
        axes = figure.add_axes(box)
        index = None if place == 0 else indices[place - 1]
        title = "Slide" if index is None else display_name(result.pathway_names[index])
        lines = wrap(title, 38)
        text = "\n".join([*lines[:1], shorten(" ".join(lines[1:]), 38, placeholder=" …")] if len(lines) > 1 else lines)
        figure.text(left / width, (bottom + high + 8) / height, text, fontsize=14, color=INK, va="bottom", ha="left")
        if index is None:
            draw_picture(axes, view, view.picture)
            draw_scale_bar(axes, view, font_pt=12.5)
        else:
            low, top = score_range(result, index)
            draw_picture(axes, view, blend(result, view, result.pathways[:, index], low, top))
            _colour_bar(figure, axes, low, top, (left, bottom - 24, wide, 11), width, height)
    text = (
        f"{result.score_unit.capitalize()} a tile; colours span each pathway's 1st to 99th percentile.   "
        "Research use only."
    )
    figure.text(side / width, 26 / height, text, fontsize=12, color=QUIET, va="center", ha="left")
    return figure


def _columns(panels: int, aspect: float) -> int:
    """The number of columns that brings the sheet closest to 3:2."""

    def misfit(columns: int) -> float:
        rows = math.ceil(panels / columns)
        ratio = columns * (_PANEL_PX + 44) / (rows * (_PANEL_PX * aspect + 134) + 176)
        return abs(math.log(ratio / 1.5)) + 0.25 * (rows * columns - panels)

    return min(range(1, min(panels, 7) + 1), key=misfit)


def _heading(figure: Figure, result: Result, left: float, width: int, height: int, page: int, pages: int) -> None:
    room = max(30, width // 14)
    title = shorten(result.slide.name, room, placeholder=" …")
    if pages > 1:
        title += f"   ({page} of {pages})"
    counts = result.tiles
    facts = (
        f"{counts.ok:,} tiles scored, {counts.unreadable:,} unreadable, {counts.background:,} background",
        f"{result.bundle.name} ({result.bundle.pfm_id}), {result.grid.target_mpp:g} µm/px, "
        f"{result.engine.name} {result.engine.precision}",
    )
    figure.text(left, 1 - 24 / height, title, fontsize=20, color=INK, va="top", ha="left", weight="bold")
    text = "   ·   ".join(facts) if width > 1000 else "\n".join(facts)
    figure.text(left, 1 - 62 / height, text, fontsize=12.5, color=QUIET, va="top", ha="left", linespacing=1.5)


def _colour_bar(
    figure: Figure,
    axes: object,
    low: float,
    top: float,
    box: tuple[float, float, float, float],
    width: int,
    height: int,
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    left, bottom, wide, high = box
    bar = figure.add_axes((left / width, bottom / height, wide / width, high / height))
    mappable = ScalarMappable(Normalize(low, top), COLOUR_MAP)
    colour_bar = figure.colorbar(mappable, cax=bar, orientation="horizontal", alpha=OPACITY)
    colour_bar.locator = MaxNLocator(5)
    colour_bar.update_ticks()
    colour_bar.ax.tick_params(labelsize=11.5, colors=INK, length=2.5, pad=2)
    colour_bar.outline.set_linewidth(0.5)
