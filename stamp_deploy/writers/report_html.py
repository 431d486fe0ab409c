"""report.html: one self-contained page to look at a slide's maps and calls, and to print.

Everything is inside the file, and its content security policy forbids it any request. Scores travel
quantised (16 bits a value, 8 for large slides, and cells merged for very large ones), so that a normal
slide's report stays below 5 MB; exact values are in tiles.parquet.
"""

from __future__ import annotations

import io
import json
import math
from base64 import b64encode
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..heads import HeadCall
from ..map_style import STRETCHED, colour_range, colour_table
from ..pathway_names import display_name
from ..result import Result
from .picture import make_view

NAME = "report"
NEEDS = ("jinja2", "matplotlib", "PIL")
PICTURE_PX = 1600
MAX_LAYER_CHARS = 3_000_000
"""Base64 characters that all map layers together may take."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One map that the page can show: `values` float32 [N] a tile."""

    name: str
    label: str
    group: str
    unit: str
    values: NDArray[np.float32]


def write(result: Result, directory: Path) -> list[Path]:
    """Write report.html."""
    path = directory / "report.html"
    path.write_text(render(result), encoding="utf-8")
    return [path]


def render(result: Result) -> str:
    """The page as text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(sig=significant, thousands=lambda value: f"{value:,}")
    source = resources.files(__package__).joinpath("templates", "report.html.j2").read_text(encoding="utf-8")
    record = result.to_json_dict()
    data = page_data(result)
    return environment.from_string(source).render(
        record=record,
        slide=record["slide"],
        tiles=record["tiles"],
        calls=[_call(head) for head in result.heads],
        pathways=_pathway_rows(result),
        provenance=_provenance(record),
        groups=_groups(data["layers"]),
        merged=data["merged"],
        size_mm=_size(result),
        # Inside <script>, "<" could end the element; \u003c is the same JSON.
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )


def _size(result: Result) -> str:
    slide = result.slide
    return f"{slide.width * slide.mpp_x / 1000:.1f} x {slide.height * slide.mpp_y / 1000:.1f} mm"


def _groups(layers: list[dict[str, Any]]) -> list[tuple[str, list[tuple[int, str]]]]:
    """The maps for the selection box: (group, [(number, label)])."""
    names = dict.fromkeys(layer["group"] for layer in layers)
    return [(name, [(i, layer["label"]) for i, layer in enumerate(layers) if layer["group"] == name]) for name in names]


def significant(value: float) -> str:
    """Three significant digits without an exponent for everyday sizes, with a true minus sign."""
    text = "0" if value == 0 else f"{value:.3g}"
    if "e" not in text and abs(value) < 1000 and value != 0:
        decimals = max(0, 2 - math.floor(math.log10(abs(value))))
        text = f"{value:.{min(decimals, 3)}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def page_data(result: Result) -> dict[str, Any]:
    """What the page's script needs: picture, cells, quantised layers, colours."""
    layers = map_layers(result)
    merge, bits = _fit(result, len(layers))
    cells, owner = _merged_cells(result, merge)
    view = make_view(result, PICTURE_PX)
    return {
        "picture": "data:image/jpeg;base64," + _jpeg(view.picture),
        "box": list(view.box),
        "step": [result.grid.step_x * merge, result.grid.step_y * merge],
        "mpp": [result.slide.mpp_x, result.slide.mpp_y],
        "grid": [math.ceil(result.grid.columns / merge), math.ceil(result.grid.rows / merge)],
        "merged": merge,
        "cells": _base64(cells.astype("<u2")),
        "colours": _base64(colour_table()),
        "colourMap": STRETCHED,
        "bits": bits,
        "layers": [_pack(layer, owner, len(cells), bits) for layer in layers],
    }


def map_layers(result: Result) -> list[Layer]:
    """Pathways in the bundle's order, then the heads' attention in multiples of the slide's average."""
    layers = [
        Layer(name, display_name(name), "Pathways", result.score_unit, result.pathways[:, i])
        for i, name in enumerate(result.pathway_names)
    ]
    for head in result.heads:
        if head.attention is not None:
            relative = head.attention / max(float(head.attention.mean()), 1e-30)
            layers.append(
                Layer(head.name, f"Attention of {head.name}", "Attention", "times the average tile", relative)
            )
    return layers


def _fit(result: Result, layers: int) -> tuple[int, int]:
    """Cells to merge on a side, and bits a value, so that the layers fit `MAX_LAYER_CHARS`."""
    n = len(result.coords) * max(layers, 1)
    for merge, bits in ((1, 16), (1, 8)):
        if n * bits / 8 * 4 / 3 <= MAX_LAYER_CHARS:
            return merge, bits
    merge = 2
    while n / merge**2 * 4 / 3 > MAX_LAYER_CHARS:
        merge += 1
    return merge, 8


def _merged_cells(result: Result, merge: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(column, row) of each shown cell, int64 [M, 2], and the shown cell of each tile, int64 [N]."""
    cells = result.tile_cells // merge
    if merge == 1:
        return cells, np.arange(len(cells))
    unique, owner = np.unique(cells[:, ::-1], axis=0, return_inverse=True)
    return unique[:, ::-1], owner.reshape(-1)


def _pack(layer: Layer, owner: NDArray[np.int64], count: int, bits: int) -> dict[str, Any]:
    """A layer as JSON: the mean of each shown cell, quantised between the smallest and the largest."""
    values = np.bincount(owner, layer.values.astype(np.float64), count) / np.maximum(
        np.bincount(owner, minlength=count), 1
    )
    low, high = (float(values.min()), float(values.max())) if count else (0.0, 1.0)
    top = 2**bits - 1
    codes = np.rint((values - low) / ((high - low) or 1.0) * top).astype("<u2" if bits == 16 else np.uint8)
    span = colour_range(layer.values)
    return {
        "name": layer.name,
        "label": layer.label,
        "group": layer.group,
        "unit": layer.unit,
        "quantised": [low, high],
        "range": list(span),
        "data": _base64(codes),
    }


def _base64(array: NDArray[Any]) -> str:
    return b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _jpeg(picture: NDArray[np.uint8]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=80, optimize=True)
    return b64encode(file.getvalue()).decode()


def _probability(value: float) -> str:
    """Two decimals, and never a 0.00 or 1.00 that is not exact."""
    if 0 < value < 0.005:
        return "< 0.01"
    return "> 0.99" if 0.995 <= value < 1 else f"{value:.2f}"


def _call(head: HeadCall) -> dict[str, Any]:
    """A call for the table: words, and positions in percent for its little diagram."""
    scale = head.kind != "survival"
    word = _probability if scale else significant

    def percent(value: float) -> float:
        return round(100 * min(max(value, 0.0), 1.0), 2)

    return {
        "name": head.name,
        "kind": head.kind,
        "call": head.call or ("No call" if head.abstained else "\N{EM DASH}"),
        "abstained": head.abstained,
        "value": word(head.value),
        "value_name": head.value_name,
        "interval": None if head.interval is None else [word(v) for v in head.interval],
        "thresholds": [f"{v:g}" for v in head.thresholds],
        "abstain": None if head.abstain is None else [f"{v:g}" for v in head.abstain],
        "classes": [(name, word(p)) for name, p in zip(head.classes, head.probabilities, strict=False)],
        "diagram": scale,
        "at": percent(head.value) if scale else 0,
        "bar": [percent(v) for v in head.interval] if scale and head.interval else None,
        "band": [percent(v) for v in head.abstain] if scale and head.abstain else None,
        "cut": percent(head.thresholds[0]) if head.kind == "binary" and head.thresholds else None,
    }


def _pathway_rows(result: Result) -> list[dict[str, Any]]:
    """The table's rows, with each pathway's 5th to 95th percentile placed between all pathways' extremes."""
    summary = result.summary()
    if not summary:
        return []
    low = min(row["p05"] for row in summary.values())
    width = (max(row["p95"] for row in summary.values()) - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    return [
        {
            "name": name,
            "label": display_name(name),
            **{key: significant(row[key]) for key in ("mean", "sd", "p05", "p50", "p95")},
            "bar": [
                place(row["p05"]),
                place(row["p25"]),
                place(row["p50"]),
                place(row["p75"]),
                place(row["p95"]),
            ],
        }
        for name, row in summary.items()
    ]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _provenance(record: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headed lists of (term, value), in words."""
    slide, bundle, engine, grid, plan = (record[key] for key in ("slide", "bundle", "engine", "grid", "read_plan"))
    return [
        (
            "Slide",
            [
                ("SHA-256", slide["sha256"]),
                ("Format", slide["vendor"]),
                ("Resolution", f"{slide['mpp_x']:g} x {slide['mpp_y']:g} µm/px, from {slide['mpp_source']}"),
                ("Evidence for it", "; ".join(slide["mpp_evidence"]) or "none recorded"),
                ("Read by", f"{slide['route']}: {slide['route_reason']}"),
                (
                    "Reading plan",
                    ", ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in plan.items()),
                ),
            ],
        ),
        (
            "Model",
            [
                ("Bundle", bundle["name"]),
                ("SHA-256 of bundle.json", bundle["sha256"]),
                ("Foundation model", f"{bundle['pfm_id']} ({bundle['pfm_licence']})"),
                ("Gene sets' SHA-256", bundle["gene_set_sha256"]),
                (
                    "Tiles",
                    f"{grid['tile_px']} px at {grid['target_mpp']:g} µm/px, overlap {grid['overlap_px']} px",
                ),
            ],
        ),
        (
            "Run",
            [
                ("Started (UTC)", record["started_utc"]),
                (
                    "Engine",
                    f"{engine['name']} {engine['version']} on {engine['device']}, {engine['precision']}",
                ),
                ("Chosen because", engine["why"] or "not recorded"),
                (
                    "Time",
                    ", ".join(f"{key.replace('_', ' ')} {s:g} s" for key, s in record["timing_seconds"].items()),
                ),
                ("Limiting stage", record["limiting_stage"] or "not recorded"),
                ("Configuration's SHA-256", record["config_sha256"]),
                ("Software", ", ".join(f"{key} {value}" for key, value in record["software"].items())),
            ],
        ),
    ]
