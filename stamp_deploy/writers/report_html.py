"""report.html: one self-contained page to look at a slide's maps, tiles and calls, and to print."""

from __future__ import annotations

from pathlib import Path

from ..html_page import render_page
from ..result import Result
from .picture import result_styles
from .report_data import groups, page_data
from .report_words import (
    call_words,
    pathway_rows,
    provenance_rows,
    spread_in_z,
    trust_words,
    validation_words,
    warning_words,
)

NAME = "report"
NEEDS = ("jinja2", "matplotlib", "PIL")
SCRIPTS = ("report_data.js", "report_map.js", "report_page.js")


def write(result: Result, directory: Path) -> list[Path]:
    """Write report.html."""
    path = directory / "report.html"
    path.write_text(render(result), encoding="utf-8")
    return [path]


def render(result: Result) -> str:
    """The page as text."""
    record = result.to_json_dict()
    data = page_data(result)
    styles = result_styles(result)
    rows = pathway_rows(result, record["pathways"]["summary"], styles)
    return render_page(
        __package__,
        "report.html.j2",
        styles=("report.css",),
        shared=("maps.js",),
        scripts=SCRIPTS,
        data=data,
        record=record,
        slide=record["slide"],
        tiles=record["tiles"],
        trust=trust_words(result),
        validation=validation_words(result, styles),
        warnings=warning_words(result),
        calls=[call_words(head) for head in result.heads],
        pathways=[("", [row for row in rows if not row["pale"]]), ("Not validated", [r for r in rows if r["pale"]])],
        areas=bool(result.summaries),
        summarised=result.summarised,
        spread_in_z=spread_in_z(result),
        counted=int(result.counted.sum()),
        provenance=provenance_rows(record),
        groups=groups(data["layers"]),
        merged=data["merged"],
        has_gallery=result.gallery is not None,
        size_mm=_size(result),
    )


def _size(result: Result) -> str:
    slide = result.slide
    return f"{slide.width * slide.mpp_x / 1000:.1f} x {slide.height * slide.mpp_y / 1000:.1f} mm"
