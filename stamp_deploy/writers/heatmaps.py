"""maps/<pathway>.png, one a pathway, and the overview sheets."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from ..result import Result
from . import overview
from .names import display_name, safe_file_names
from .picture import COLOUR_MAP, INK, OPACITY, QUIET, View, blend, draw_picture, draw_scale_bar, make_view, score_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "heatmaps"
FILES = ("maps/<pathway>.png", "overview.png")
_DPI = 100
_MIN_WIDTH_PX = 760


def write(result: Result, directory: Path) -> list[Path]:
    """Write one PNG a pathway into maps/, and the overview sheets."""
    folder = directory / "maps"
    folder.mkdir(exist_ok=True)
    view = make_view(result)
    written = []
    for index, stem in enumerate(safe_file_names(result.pathway_names)):
        path = folder / f"{stem}.png"
        save(draw(result, view, index), path)
        written.append(path)
    return [*written, *overview.write(result, directory)]


def draw(result: Result, view: View, index: int) -> Figure:
    """The figure of one pathway: title, map over the slide, colour bar, scale bar, footer."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    name = result.pathway_names[index]
    high, wide = view.picture.shape[:2]
    left, right, bottom = 40, 190, 104
    width = max(wide + left + right, _MIN_WIDTH_PX)
    title = "\n".join(wrap(display_name(name), max(20, width // 22)))
    top = 74 + 34 * title.count("\n") + 14
    height = high + top + bottom
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
    low, top_value = score_range(result, index)
    draw_picture(axes, view, blend(result, view, result.pathways[:, index], low, top_value))
    draw_scale_bar(axes, view, font_pt=11)

    figure.text(left / width, 1 - 22 / height, title, fontsize=19, color=INK, va="top", ha="left", linespacing=1.25)
    exact = "\n".join(wrap(name, max(30, width // 11), break_on_hyphens=False))
    figure.text(left / width, (height - top + 10) / height, exact, fontsize=9.5, color=QUIET, va="bottom", ha="left")

    bar_high = min(high, 420)
    bar = figure.add_axes(((left + wide + 28) / width, (bottom + high - bar_high) / height, 20 / width, bar_high / height))
    mappable = ScalarMappable(Normalize(low, top_value), COLOUR_MAP)
    colour_bar = figure.colorbar(mappable, cax=bar, extend="both", extendfrac=0.03, alpha=OPACITY)
    colour_bar.set_label(f"{result.score_unit}, tile mean", fontsize=11, color=INK, labelpad=8)
    colour_bar.ax.tick_params(labelsize=10, colors=INK, length=3)
    colour_bar.outline.set_linewidth(0.5)
    for text, y, colour in (
        (f"{result.slide.name}   ·   {len(result.coords):,} tiles of {result.grid.tile_px} px at "
         f"{result.grid.target_mpp:g} µm/px   ·   colours: 1st to 99th percentile", 40, INK),
        ("Research use only. Not for diagnostic procedures.", 18, QUIET),
    ):
        figure.text(left / width, y / height, text, fontsize=9.5, color=colour, va="center", ha="left")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, without a date or a software version: the same result gives the same bytes."""
    figure.savefig(path, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 6})
