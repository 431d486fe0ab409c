"""overview.png, overview-2.png ...: the slide and its maps side by side, for a first look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..map_style import MapStyle
from ..result import Result
from .picture import Painter, View, left_out_note, make_view, map_opacity, result_styles

if TYPE_CHECKING:
    from PIL.Image import Image

PANEL_PX = 430
GAP, SIDE, HEAD, FOOT, OVER, UNDER = 48, 40, 116, 64, 44, 62
"""Pixels between columns, beside the page, for its head and foot, for a panel's title and what is below it."""
TITLE_PX, EVIDENCE_PX = 19, 15
MAPS_PER_PAGE = 19
"""With the slide itself, 20 panels: 50 pathways fill three pages."""


def write(result: Result, directory: Path) -> list[Path]:
    """Write the overview sheets, `MAPS_PER_PAGE` pathways each, those that are not validated last."""
    from .canvas import png_bytes

    view = make_view(result, PANEL_PX)
    aspect = float(np.clip(view.height_um / view.width_um, 0.25, 3))
    high = round(PANEL_PX * aspect)
    longest = max(view.picture.shape[:2])
    scale = min(PANEL_PX / view.picture.shape[1], high / view.picture.shape[0])
    view = make_view(result, max(1, int(longest * scale)))
    painter = Painter(result, view)
    styles = result_styles(result)
    count = len(styles)
    pages = max(1, math.ceil(count / MAPS_PER_PAGE))
    # Even pages: 20 maps make 10 + 10, not 19 + 1.
    size = math.ceil(count / pages)
    written = []
    for page in range(pages):
        path = directory / ("overview.png" if page == 0 else f"overview-{page + 1}.png")
        shown = styles[page * size : (page + 1) * size]
        path.write_bytes(png_bytes(draw(result, view, painter, shown, high, page + 1, pages)))
        written.append(path)
    return written


def draw(
    result: Result, view: View, painter: Painter, styles: Sequence[MapStyle], high: int, page: int, pages: int
) -> Image:
    """One sheet: a heading, the slide, and per pathway a panel of `high` pixels with r and its own colour bar."""
    from PIL import Image

    from . import canvas

    panels = len(styles) + 1
    columns = _columns(panels, high / PANEL_PX)
    rows = math.ceil(panels / columns)
    width = 2 * SIDE + columns * PANEL_PX + (columns - 1) * GAP
    sheet = Image.new("RGB", (width, HEAD + rows * (OVER + high + UNDER) + FOOT), "white")
    _heading(sheet, result, page, pages)
    for place in range(panels):
        row, column = divmod(place, columns)
        left = SIDE + column * (PANEL_PX + GAP)
        top = HEAD + row * (OVER + high + UNDER) + OVER
        if place == 0:
            canvas.write_text(sheet, (left, top - 10), "Slide", TITLE_PX)
            _panel(sheet, view.picture, left, top, high)
            canvas.scale_bar(sheet, view, (left, top + high + 18), view.picture.shape[1], 17)
        else:
            style = styles[place - 1]
            _panel_title(sheet, style, left, top - 10)
            _panel(sheet, painter.paint_map(style), left, top, high)
            bar = (left, top + high + 12, PANEL_PX, 12)
            canvas.horizontal_bar(sheet, bar, style.low, style.high, palette=style.palette, opacity=map_opacity(style))
    units = dict.fromkeys(f"{style.unit}, {style.span}" for style in styles)
    note = f"Unit: {'; '.join(units)}.   {left_out_note(result)}Research use only."
    canvas.write_text(sheet, (SIDE, sheet.height - 24), canvas.fit(note, 17, width - 2 * SIDE), 17, colour=canvas.QUIET)
    return sheet


def _panel_title(sheet: Image, style: MapStyle, left: int, base: int) -> None:
    """The pathway's name at the left, its r at the right."""
    from . import canvas

    words, colour = style.short, canvas.WARN if style.pale else canvas.QUIET
    canvas.write_text(sheet, (left + PANEL_PX, base), words, EVIDENCE_PX, colour=colour, anchor="rs")
    room = PANEL_PX - canvas.text_width(words, EVIDENCE_PX) - 12
    colour = canvas.QUIET if style.pale else canvas.INK
    canvas.write_text(sheet, (left, base), canvas.fit(style.label, TITLE_PX, room), TITLE_PX, colour=colour)


def _panel(sheet: Image, picture: NDArray[np.uint8], left: int, top: int, high: int) -> None:
    """A picture in the middle of its panel."""
    from PIL import Image

    from . import canvas

    tall, wide = picture.shape[:2]
    x, y = left + (PANEL_PX - wide) // 2, top + (high - tall) // 2
    sheet.paste(Image.fromarray(picture), (x, y))
    canvas.outline(sheet, x, y, wide, tall)


def _columns(panels: int, aspect: float) -> int:
    """The number of columns that brings the sheet closest to 3:2."""

    def misfit(columns: int) -> float:
        rows = math.ceil(panels / columns)
        ratio = columns * (PANEL_PX + GAP) / (rows * (PANEL_PX * aspect + OVER + UNDER) + HEAD + FOOT)
        return abs(math.log(ratio / 1.5)) + 0.25 * (rows * columns - panels)

    return min(range(1, min(panels, 7) + 1), key=misfit)


def _heading(sheet: Image, result: Result, page: int, pages: int) -> None:
    from . import canvas

    room = sheet.width - 2 * SIDE
    of = f"   ({page} of {pages})" if pages > 1 else ""
    title = canvas.fit(result.slide.name, 28, room - canvas.text_width(of, 28, bold=True), bold=True) + of
    canvas.write_text(sheet, (SIDE, 46), title, 28, bold=True)
    counts = result.tiles
    facts = (
        f"{counts.ok:,} tiles scored, {counts.unreadable:,} unreadable, {counts.background:,} background",
        f"{result.bundle.name} ({result.bundle.pfm_id}), {result.grid.target_mpp:g} µm/px, "
        f"{result.engine.name} {result.engine.precision}",
    )
    lines = ["   ·   ".join(facts)] if room > 1000 else [canvas.fit(fact, 17, room) for fact in facts]
    canvas.write_text(sheet, (SIDE, 78), lines, 17, colour=canvas.QUIET)
