"""maps/<pathway>.png, one per pathway, and the overview sheets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..map_style import MapStyle
from ..result import Result
from ..system.processor import usable_cores
from . import overview
from .names import safe_file_names
from .picture import Painter, View, left_out_note, make_view, map_opacity, result_styles

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "heatmaps"
NEEDS = ("matplotlib", "PIL")
MIN_WIDTH_PX = 760
LEFT, RIGHT, BOTTOM = 40, 170, 104
TITLE_PX, FACTS_PX = 26, 13


def write(result: Result, directory: Path) -> list[Path]:
    """Write one PNG per pathway into maps/, and the overview sheets."""
    from .canvas import png_bytes

    folder = directory / "maps"
    folder.mkdir(exist_ok=True)
    view = make_view(result)
    painter = Painter(result, view)
    paths = [folder / f"{stem}.png" for stem in safe_file_names(result.pathway_names)]

    def one(style: MapStyle) -> None:
        paths[style.index].write_bytes(png_bytes(draw(result, view, style, painter)))

    # numpy, zlib and the disk leave the lock: threads share the cores.
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="maps") as pool:
        list(pool.map(one, result_styles(result)))
    return [*paths, *overview.write(result, directory)]


def draw(result: Result, view: View, style: MapStyle, painter: Painter | None = None) -> Image:
    """The picture of one pathway: title with r, map over the slide, colour bar, scale bar, footer.

    Parameters
    ----------
    painter : Painter, optional
        One that is made already, for many maps over the same view.
    """
    from PIL import Image

    from . import canvas

    high, wide = view.picture.shape[:2]
    width = max(wide + LEFT + RIGHT, MIN_WIDTH_PX)
    room = width - 2 * LEFT
    title = canvas.wrap(style.label, TITLE_PX, room, 3)
    below = [(line, canvas.WARN if style.pale else canvas.INK) for line in canvas.wrap(style.title, FACTS_PX, room, 2)]
    if style.name != style.label:
        below += [(line, canvas.QUIET) for line in canvas.wrap(style.name, FACTS_PX, room, 3)]
    top = round(28 + canvas.LINE * (TITLE_PX * len(title) + FACTS_PX * len(below)))
    page = Image.new("RGB", (width, top + high + BOTTOM), "white")
    canvas.write_text(page, (LEFT, 16 + TITLE_PX), title, TITLE_PX, colour=canvas.QUIET if style.pale else canvas.INK)
    line_px = 16 + TITLE_PX + canvas.LINE * (TITLE_PX * (len(title) - 1) + FACTS_PX) + 4
    for line, colour in below:
        canvas.write_text(page, (LEFT, line_px), line, FACTS_PX, colour=colour)
        line_px += canvas.LINE * FACTS_PX

    page.paste(Image.fromarray((painter or Painter(result, view)).paint_map(style)), (LEFT, top))
    canvas.outline(page, LEFT, top, wide, high)
    bar = (LEFT + wide + 24, top, 20, min(high, 420))
    opacity = map_opacity(style)
    canvas.vertical_bar(page, bar, style.low, style.high, style.unit, palette=style.palette, opacity=opacity)
    canvas.scale_bar(page, view, (LEFT, top + high + 18), wide, 15)

    facts = (
        f"{canvas.fit(result.slide.name, FACTS_PX, room // 2)}   ·   {len(result.coords):,} tiles of "
        f"{result.grid.tile_px} px at {result.grid.target_mpp:g} µm/px"
    )
    note = f"{style.span[:1].upper()}{style.span[1:]}.   {left_out_note(result)}Research use only."
    canvas.write_text(page, (LEFT, page.height - 38), facts, FACTS_PX)
    canvas.write_text(page, (LEFT, page.height - 16), canvas.fit(note, FACTS_PX, room), FACTS_PX, colour=canvas.QUIET)
    return page
