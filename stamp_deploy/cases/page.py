"""index.html: all slides of a folder on one page, without a network, from phone to desk."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from typing import Any

from .. import __version__, html_page
from ..heads import value_text
from ..pathway_names import display_name
from ..provenance import RESEARCH_USE
from .matrix import COMMON, Matrix
from .slide_record import Results, SlideRecord
from .thumbnails import Thumbnails

MAX_THUMBNAILS = 1000
"""Beyond it thumbnails are left out: the page would be too large to open."""


def render_page(
    results: Results, matrix: Matrix, heat_map: bytes, folder: Path, thumbnails: Thumbnails | None = None
) -> str:
    """The page as text.

    Parameters
    ----------
    results : Results
    matrix : Matrix
    heat_map : bytes
        Its picture, PNG.
    folder : Path
        Where the page will lie: links to the reports start there.
    thumbnails : Thumbnails, optional
        Those of the last summary.
    """
    common = matrix.scale == COMMON
    names = results.pathway_names
    shown = len(results.slides) <= MAX_THUMBNAILS
    pictures = (thumbnails or Thumbnails()) if shown else None
    slides = [_slide(slide, folder, pictures, common=common) for slide in results.slides]
    scores = {str(i): [row["values"].get(name) for row in slides] for i, name in enumerate(names)}
    validated = results.slides[0].validated
    return html_page.render_page(
        __package__,
        "index.html.j2",
        styles=("index.css",),
        scripts=("index.js",),
        data=scores,
        slides=slides,
        heads=list(dict.fromkeys(head["name"] for slide in results.slides for head in slide.record["heads"])),
        unread=results.unread,
        pathways=[
            (i, display_name(name) + ("" if validated.get(name, not validated) else " (not validated)"))
            for i, name in sorted(enumerate(names), key=lambda item: not validated.get(item[1], not validated))
        ],
        unit="z on the common scale" if common else results.slides[0].unit,
        scale=matrix.scale,
        counts={verdict: sum(s.verdict == verdict for s in results.slides) for verdict in _ORDER},
        cases=len({slide.case_id for slide in results.slides if slide.case_id}),
        without_case=sum(not slide.case_id for slide in results.slides),
        bundle=results.slides[0].record["bundle"],
        heat_map=b64encode(heat_map).decode(),
        thumbnails=shown,
        software=__version__,
        research_use=RESEARCH_USE,
    )


_ORDER = ("outside", "doubtful", "not judged", "inside")
"""Verdicts, the most worrying first: as the page sorts and counts them."""


def _slide(slide: SlideRecord, folder: Path, pictures: Thumbnails | None, *, common: bool) -> dict[str, Any]:
    record = slide.record
    report = slide.folder / "report.html"
    return {
        "name": slide.name,
        "key": slide.key,
        "case": slide.case_id,
        "verdict": slide.verdict,
        "rank": _ORDER.index(slide.verdict) if slide.verdict in _ORDER else len(_ORDER),
        "reasons": slide.reasons,
        "left_out": slide.left_out_tiles,
        "tiles": int(record["tiles"]["ok"]),
        "unreadable": int(record["tiles"].get("unreadable", 0)),
        "tissue": slide.tissue_mm2,
        "warnings": slide.warnings,
        "calls": {head["name"]: _call(head) for head in record["heads"]},
        "values": slide.z if common else slide.means,
        "link": _link(report, folder) if report.is_file() else "",
        "picture": "" if pictures is None else pictures.of(slide.folder),
    }


def _call(head: dict[str, Any]) -> dict[str, Any]:
    text = head["call"] or ("no call" if head["abstained"] else "")
    value = float(head["value"])
    return {
        "text": text,
        "value": value,
        "shown": value_text(head["kind"], value),
        "name": head["value_name"],
        "abstained": head["abstained"],
    }


def _link(path: Path, start: Path) -> str:
    """The way from one folder to a file; the template escapes it."""
    return os.path.relpath(path, start).replace(os.sep, "/")
