"""summaries.csv: the slide in figures, one row per region and pathway (docs/summaries.md)."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..result import Result
from ..summaries import PathwaySummary, RegionSummary

NAME = "summaries"
NEEDS: tuple[str, ...] = ()
REGION_COLUMNS = ("region", "tiles", "tiles_left_out", "tissue_mm2", "scores")
TEXT_COLUMNS = ("region", "scores", "pathway", "threshold_is", "no_interval_because")
"""Columns of text; all others are numbers."""
SPOT_COLUMNS = ("area_mm2", "tiles", "mean", "x_level0_px", "y_level0_px")


def write(result: Result, directory: Path) -> list[Path]:
    """Write summaries.csv: UTF-8, a header, empty cells for what does not exist."""
    path = directory / "summaries.csv"
    rows = summary_rows(result.summaries)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, column_names())
        table.writeheader()
        table.writerows(rows)
    return [path]


def column_names() -> list[str]:
    """The columns: the region, then each field of a pathway's summary, intervals as _low and _high."""
    names = ["pathway"]
    for field in fields(PathwaySummary)[1:]:
        if field.name.endswith("_interval"):
            names += [f"{field.name.removesuffix('_interval')}_{end}" for end in ("low", "high")]
        elif field.name == "hot_spot":
            names += [f"hot_spot_{name}" for name in SPOT_COLUMNS]
        else:
            names.append(field.name)
    return [*REGION_COLUMNS, *names]


def summary_rows(regions: tuple[RegionSummary, ...]) -> list[dict[str, Any]]:
    """One row per region and pathway, by `column_names`; None for what does not exist."""
    return [
        {**{name: getattr(region, name) for name in REGION_COLUMNS}, **pathway_cells(item)}
        for region in regions
        for item in region.pathways
    ]


def pathway_cells(item: PathwaySummary) -> dict[str, Any]:
    """A pathway's figures as flat cells."""
    cells: dict[str, Any] = {"pathway": item.name}
    for field in fields(PathwaySummary)[1:]:
        value = getattr(item, field.name)
        if field.name.endswith("_interval"):
            stem = field.name.removesuffix("_interval")
            cells[f"{stem}_low"], cells[f"{stem}_high"] = value or (None, None)
        elif field.name == "hot_spot":
            cells.update({f"hot_spot_{name}": getattr(value, name, None) for name in SPOT_COLUMNS})
        else:
            cells[field.name] = value
    return cells
