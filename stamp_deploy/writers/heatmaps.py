"""maps/<pathway>.png, one a pathway, and the overview sheets."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..result import Result
from . import overview
from .names import display_name, safe_file_names
from .picture import Painter, View, make_view, score_range

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "heatmaps"
FILES = ("maps/<pathway>.png", "overview.png")
NEEDS = ("matplotlib", "PIL")
MIN_WIDTH_PX = 760
LEFT, RIGHT, BOTTOM = 40, 170, 104
TITLE_PX, EXACT_PX, FACTS_PX = 26, 13, 13


def write(result: Result, directory: Path) -> list[Path]:
    """Write one PNG a pathway into maps/, and the overview sheets."""
    from .canvas import png_bytes

    folder = directory / "maps"
    folder.mkdir(exist_ok=True)
    view = make_view(result)
    painter = Painter(result, view)
    paths = [folder / f"{stem}.png" for stem in safe_file_names(result.pathway_names)]

    def one(index: int) -> None:
        paths[index].write_bytes(png_bytes(draw(result, view, index, painter)))

    # numpy, zlib and the disk leave the lock: threads share the cores.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="maps") as pool:
        list(pool.map(one, range(len(paths))))
    return [*paths, *overview.write(result, directory)]


def draw(result: Result, view: View, index: int, painter: Painter | None = None) -> Image:
    """The picture of one pathway: title, map over the slide, colour bar, scale bar, footer.

    Parameters
    ----------
    painter : Painter, optional
        One that is made already, for many maps over the same view.
    """
    from PIL import Image

    from . import canvas

    name = result.pathway_names[index]
    high, wide = view.picture.shape[:2]
    width = max(wide + LEFT + RIGHT, MIN_WIDTH_PX)
    room = width - 2 * LEFT
    title = canvas.wrap(display_name(name), TITLE_PX, room, 3)
    exact = canvas.wrap(name, EXACT_PX, room, 3) if name != display_name(name) else []
    top = round(28 + canvas.LINE * (TITLE_PX * len(title) + EXACT_PX * len(exact)))
    page = Image.new("RGB", (width, top + high + BOTTOM), "white")
    canvas.write_text(page, (LEFT, 16 + TITLE_PX), title, TITLE_PX)
    below = 16 + TITLE_PX + canvas.LINE * (TITLE_PX * (len(title) - 1) + EXACT_PX) + 4
    canvas.write_text(page, (LEFT, below), exact, EXACT_PX, colour=canvas.QUIET)

    low, top_value = score_range(result, index)
    mapped = (painter or Painter(result, view)).paint(result.pathways[:, index], low, top_value)
    page.paste(Image.fromarray(mapped), (LEFT, top))
    canvas.outline(page, LEFT, top, wide, high)
    bar = (LEFT + wide + 24, top, 20, min(high, 420))
    canvas.vertical_bar(page, bar, low, top_value, result.score_unit)
    canvas.scale_bar(page, view, (LEFT, top + high + 18), wide, 15)

    facts = (
        f"{canvas.fit(result.slide.name, FACTS_PX, room // 2)}   ·   {len(result.coords):,} tiles of "
        f"{result.grid.tile_px} px at {result.grid.target_mpp:g} µm/px"
    )
    note = "Colours span the 1st to 99th percentile.   Research use only. Not for diagnostic procedures."
    canvas.write_text(page, (LEFT, page.height - 38), facts, FACTS_PX)
    canvas.write_text(page, (LEFT, page.height - 16), note, FACTS_PX, colour=canvas.QUIET)
    return page
