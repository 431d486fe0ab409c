"""report.html: one self-contained page to look at a slide's maps, tiles and calls, and to print.

Everything is inside the file. Its content security policy forbids it any request, and runs the one script whose hash it
names (Content Security Policy Level 3): a name out of a bundle or a slide cannot become code.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from importlib import resources
from pathlib import Path

from ..result import Result
from .picture import result_styles
from .report_data import groups, page_data
from .report_words import (
    call_words,
    pathway_rows,
    provenance_rows,
    significant,
    spread_in_z,
    trust_words,
    validation_words,
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
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_template),
    )
    environment.filters.update(sig=significant, thousands=lambda value: f"{value:,}")
    record = result.to_json_dict()
    data = page_data(result)
    styles = result_styles(result)
    script = "\n".join(['"use strict";', *(_template(name) for name in SCRIPTS)])
    rows = pathway_rows(result, styles)
    return environment.get_template("report.html.j2").render(
        record=record,
        slide=record["slide"],
        tiles=record["tiles"],
        trust=trust_words(result),
        validation=validation_words(result, styles),
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
        css=_template("report.css"),
        script=script,
        script_sha256=b64encode(sha256(f"\n{script}\n".encode()).digest()).decode(),
        # Inside <script>, "<" could end the element; \u003c is the same JSON.
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )


def _template(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _size(result: Result) -> str:
    slide = result.slide
    return f"{slide.width * slide.mpp_x / 1000:.1f} x {slide.height * slide.mpp_y / 1000:.1f} mm"
