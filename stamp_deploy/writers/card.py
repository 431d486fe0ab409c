"""A result as a notebook shows it: facts, calls, the slide and its first maps in one piece of HTML."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape

import numpy as np
from numpy.typing import NDArray

from ..heads import value_text
from ..result import Result
from .picture import Painter, make_view, result_styles
from .report_words import trust_words

PANEL_PX = 240
MAPS = 5
"""Maps that are shown beside the slide; `Result.plot` draws any."""


def card_html(result: Result) -> str:
    """The card: self-contained, every text of the result escaped."""
    view = make_view(result, PANEL_PX)
    panels = [("Slide", view.picture)]
    painter = Painter(result, view)
    for style in result_styles(result)[:MAPS]:
        panels.append((f"{style.label} ({style.short})", painter.paint_map(style)))
    figures = "".join(
        f'<figure style="margin:0"><img alt="{escape(title)}" src="data:image/png;base64,{_png(picture)}">'
        f'<figcaption style="font-size:90%">{escape(title)}</figcaption></figure>'
        for title, picture in panels
    )
    calls = "".join(
        f"<li>{escape(head.name)}: {escape(head.call or ('no call' if head.abstained else ''))} "
        f"({escape(head.value_name)} {escape(value_text(head.kind, head.value, 3))})</li>"
        for head in result.heads
    )
    trust = trust_words(result)
    why = "" if trust["verdict"] == "inside" else f" {'; '.join(trust['reasons'])}."
    words = [f"<b>{escape(trust['name'])}.</b> {escape(trust['meaning'] + why)}", escape(trust["left_out"])]
    judged = "".join(f'<p style="margin:4px 0">{text}</p>' for text in words if text)
    more = len(result.pathway_names) - MAPS
    facts = (
        f"{result.tiles.ok:,} tiles of {result.grid.tile_px} px at {result.grid.target_mpp:g} µm/px, "
        f"{len(result.pathway_names)} pathways{f' ({MAPS} shown)' if more > 0 else ''}, bundle {result.bundle.name}"
    )
    return (
        f"<div><b>{escape(result.slide.name)}</b><br>{escape(facts)}{judged}"
        + (f'<ul style="margin:4px 0">{calls}</ul>' if calls else "")
        + f'<div style="display:flex;flex-wrap:wrap;gap:12px;margin-top:6px">{figures}</div>'
        + f"<small>{escape(result.research_use)}</small></div>"
    )


def _png(picture: NDArray[np.uint8]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return b64encode(file.getvalue()).decode()
