"""maps/<pathway>.png, one a pathway, and the overview sheets."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten, wrap
from typing import TYPE_CHECKING

import numpy as np

from ..result import Result
from . import overview
from .names import display_name, safe_file_names
from .picture import COLOUR_MAP, INK, OPACITY, QUIET, View, blend, draw_scale_bar, frame, make_view, score_range

if TYPE_CHECKING:
    from PIL import Image

NAME = "heatmaps"
FILES = ("maps/<pathway>.png", "overview.png")
NEEDS = ("matplotlib", "PIL")
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
        # Without metadata, so that the same result gives the same bytes.
        draw(result, view, index).save(path, format="PNG", compress_level=3)
        written.append(path)
    return [*written, *overview.write(result, directory)]


def draw(result: Result, view: View, index: int) -> Image.Image:
    """The picture of one pathway: title, map over the slide, colour bar, scale bar, footer.

    matplotlib draws all but the map, which is pasted in pixel for pixel: sharp tiles, and twice as fast.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from PIL import Image, ImageDraw

    name = result.pathway_names[index]
    high, wide = view.picture.shape[:2]
    left, right, bottom = 40, 190, 104
    width = max(wide + left + right, _MIN_WIDTH_PX)
    title = "\n".join(wrap(display_name(name), max(20, width // 22)))
    exact = "\n".join(wrap(name, max(30, width // 11), break_on_hyphens=False))
    top = 88 + 34 * title.count("\n") + 16 * exact.count("\n")
    height = high + top + bottom
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    low, top_value = score_range(result, index)
    axes = figure.add_axes((left / width, bottom / height, wide / width, high / height), facecolor="none")
    frame(axes, view)
    draw_scale_bar(axes, view, font_pt=11)

    figure.text(left / width, 1 - 22 / height, title, fontsize=19, color=INK, va="top", ha="left", linespacing=1.25)
    figure.text(left / width, (height - top + 10) / height, exact, fontsize=9.5, color=QUIET, va="bottom", ha="left")

    bar_high = min(high, 420)
    bar = figure.add_axes(
        ((left + wide + 28) / width, (bottom + high - bar_high) / height, 20 / width, bar_high / height)
    )
    mappable = ScalarMappable(Normalize(low, top_value), COLOUR_MAP)
    colour_bar = figure.colorbar(mappable, cax=bar, extend="both", extendfrac=0.03, alpha=OPACITY)
    colour_bar.set_label(result.score_unit, fontsize=11, color=INK, labelpad=8)
    colour_bar.ax.tick_params(labelsize=10, colors=INK, length=3)
    colour_bar.outline.set_linewidth(0.5)
    facts = (
        f"{shorten(result.slide.name, 48, placeholder=' …')}   ·   {len(result.coords):,} tiles of "
        f"{result.grid.tile_px} px at {result.grid.target_mpp:g} µm/px"
    )
    figure.text(left / width, 40 / height, facts, fontsize=9.5, color=INK, va="center", ha="left")
    note = "Colours span the 1st to 99th percentile.   Research use only. Not for diagnostic procedures."
    figure.text(left / width, 18 / height, note, fontsize=9.5, color=QUIET, va="center", ha="left")
    canvas.draw()  # type: ignore[no-untyped-call]
    picture = Image.fromarray(np.asarray(canvas.renderer.buffer_rgba())[..., :3])
    mapped = blend(result, view, result.pathways[:, index], low, top_value)
    picture.paste(Image.fromarray(mapped), (left, top))
    ImageDraw.Draw(picture).rectangle((left - 1, top - 1, left + wide, top + high), outline="#d0d0d0")
    return picture
