"""The demo's picture: the pattern that was drawn beside the map that was inferred, program by program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stamp_deploy.map_style import colour_range
from stamp_deploy.result import Result
from stamp_deploy.writers.canvas import INK, QUIET
from stamp_deploy.writers.picture import View, blend, length_label, make_view, round_length_um

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_PX = 360
"""Of one picture."""


@dataclass(frozen=True)
class Match:
    """How well a map follows the pattern that was drawn: Pearson's r over the tiles of the unseen section."""

    program: str
    visible: bool
    r: float
    tiles: int


def write_comparison(path: Path, result: Result, truth: NDArray[np.float32], matches: Sequence[Match]) -> None:
    """Write a PNG: one column per program, truth float32 [N, P] above the inferred map; the slide at the left."""
    view = make_view(result, max_px=WIDTH_PX)
    height = WIDTH_PX * view.height_um / view.width_um
    columns = len(matches) + 1
    figure = Figure(figsize=(columns * (WIDTH_PX + 16) / 100, (2 * height + 130) / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns, squeeze=False)
    figure.subplots_adjust(left=0.005, right=0.995, top=0.90, bottom=0.09, wspace=0.04, hspace=0.06)
    draw_picture(axes[0, 0], view, view.picture)
    draw_scale_bar(axes[0, 0], view, font_pt=10)
    axes[0, 0].set_title("the slide", fontsize=11, color=INK)
    axes[1, 0].axis("off")
    text = "above: the pattern that was drawn\nbelow: the map inferred from the picture"
    axes[1, 0].text(0, 0.85, text, transform=axes[1, 0].transAxes, va="top", fontsize=10.5, color=INK, linespacing=1.6)
    note = "Synthetic data.\nResearch use only."
    axes[1, 0].text(0, 0, note, transform=axes[1, 0].transAxes, va="bottom", fontsize=9, color=QUIET)
    for column, match in enumerate(matches, start=1):
        scores = result.pathways[:, result.pathway_names.index(match.program)]
        _draw(axes[0, column], result, view, truth[:, column - 1])
        _draw(axes[1, column], result, view, scores)
        axes[0, column].set_title(match.program.lower(), fontsize=11, color=INK)
        leaves = "" if match.visible else " (leaves no trace in the picture)"
        axes[1, column].set_xlabel(f"r = {match.r:.2f}{leaves}", fontsize=10.5, color=INK)
    canvas.print_png(str(path))  # type: ignore[no-untyped-call]


def _draw(axes: object, result: Result, view: View, values: NDArray[np.float32]) -> None:
    low, high = colour_range(values)
    draw_picture(axes, view, blend(result, view, values, low, high))  # type: ignore[arg-type]


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
