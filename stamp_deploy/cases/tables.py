"""The tables: slides with a column per pathway, all figures, calls, and cases."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..summaries import RegionSummary
from ..writers import summary_table
from ..writers.summary_table import column_names, summary_rows
from .slide_record import Results, SlideRecord

if TYPE_CHECKING:
    from pyarrow import Table

Row = dict[str, Any]
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
OUTSIDE = "outside"


def _slide_cells(slide: SlideRecord) -> Row:
    return {
        "case_id": slide.case_id,
        "slide": slide.name,
        "result": slide.key,
        "verdict": slide.verdict,
        "reasons": "; ".join(slide.reasons),
    }


def pathway_rows(results: Results) -> list[Row]:
    """One row per slide, one column per pathway: its mean over the slide; None where no tile counts."""
    return [
        {
            **_slide_cells(slide),
            "tiles": slide.record["tiles"]["ok"],
            "left_out_tiles": slide.left_out_tiles,
            "tissue_mm2": slide.tissue_mm2,
            "scores": slide.record["pathways"].get("summarised", "pathways"),
            "warnings": "; ".join(slide.warnings),
            **{f"pathway.{name}": slide.means.get(name) for name in results.pathway_names},
        }
        for slide in results.slides
    ]


def figure_rows(results: Results) -> list[Row]:
    """One row per slide, region and pathway, with every figure of docs/summaries.md, and whether it is validated."""
    rows: list[Row] = []
    for slide in results.slides:
        regions = tuple(map(RegionSummary.from_dict, slide.record.get("summaries", ())))
        rows += [
            {**_slide_cells(slide), **row, "validated": slide.validated.get(row["pathway"])}
            for row in summary_rows(regions)
        ]
    return rows


FIGURE_COLUMNS = ["case_id", "slide", "result", "verdict", "reasons", *column_names(), "validated"]
CALL_COLUMNS = [
    "case_id", "slide", "result", "verdict", "reasons", "head", "kind", "call", "abstained", "value_name", "value",
    "value_low", "value_high", "warnings",
]  # fmt: skip


def call_rows(results: Results) -> list[Row]:
    """One row per slide and head."""
    rows = []
    for slide in results.slides:
        for head in slide.record["heads"]:
            low, high = head["interval"] or (None, None)
            rows.append(
                {
                    **_slide_cells(slide),
                    "head": head["name"],
                    "kind": head["kind"],
                    "call": head["call"],
                    "abstained": head["abstained"],
                    "value_name": head["value_name"],
                    "value": head["value"],
                    "value_low": low,
                    "value_high": high,
                    "warnings": "; ".join(slide.warnings),
                }
            )
    return rows


def case_rows(results: Results) -> list[Row]:
    """One row per case: the mean of its slides, each weighted by its tissue.

    Slides outside what the model knows are counted and left out; slides that no sheet gives a case are not there. Calls
    are not joined: heads were trained on single slides.
    """
    rows = []
    for case in sorted({slide.case_id for slide in results.slides if slide.case_id}):
        members = [slide for slide in results.slides if slide.case_id == case]
        counted = [slide for slide in members if slide.verdict != OUTSIDE and slide.means and slide.tissue_mm2]
        weights = np.array([slide.tissue_mm2 for slide in counted], np.float64)
        row: Row = {
            "case_id": case,
            "slides": len(members),
            "slides_left_out": len(members) - len(counted),
            "doubtful_slides": sum(slide.verdict == "doubtful" for slide in counted),
            "tissue_mm2": float(weights.sum()),
        }
        for name in results.pathway_names:
            values = np.array([slide.means[name] for slide in counted])
            row[f"pathway.{name}"] = float(weights @ values / weights.sum()) if len(counted) else None
        rows.append(row)
    return rows


def to_csv(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    """UTF-8 with a header. A text that a spreadsheet would take for a formula gets a quote before it."""
    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow([_safe(name) for name in columns])
    table.writerows([[_safe(row[name]) for name in columns] for row in rows])
    return file.getvalue().encode()


def to_arrow(rows: Sequence[Row], columns: Sequence[str], text: Sequence[str] = ()) -> Table:
    """The same as a `pyarrow.Table`; columns without any value are of floats, those in `text` of strings."""
    import pyarrow as pa

    arrays = {}
    for name in columns:
        values = [row[name] for row in rows]
        empty = all(value is None for value in values)
        arrays[name] = pa.array(values, type=(pa.string() if name in text else pa.float64()) if empty else None)
    return pa.table(arrays)


def parquet_bytes(table: Table) -> bytes:
    """A table as the content of a Parquet file."""
    from pyarrow import BufferOutputStream, parquet

    sink = BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _safe(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


def columns_of(rows: Sequence[Row], otherwise: Sequence[str]) -> list[str]:
    """Columns of a table, which may have no row."""
    return list(rows[0]) if rows else list(otherwise)


TEXT_COLUMNS = (
    "case_id", "slide", "result", "verdict", "reasons", "head", "kind", "call", "value_name", "warnings",
    *summary_table.TEXT_COLUMNS,
)  # fmt: skip
CASE_COLUMNS = ["case_id", "slides", "slides_left_out", "doubtful_slides", "tissue_mm2"]
