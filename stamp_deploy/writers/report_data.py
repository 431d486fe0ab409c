"""What the report's script needs, as JSON: the slide's picture, cells, quantised maps, histograms, the gallery.

Scores travel quantised (16 bits per value, 8 for large slides, and cells merged for very large ones), so that the page
stays below 8 MB. Exact values are in tiles.parquet.
"""

from __future__ import annotations

import io
import math
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..map_style import STRETCHED, MapStyle, colour_range, colour_table
from ..result import Result
from ..trust import TileFlag
from ..validation import facts_of
from .picture import View, make_view, result_styles

PICTURE_PX = 2048
MAX_LAYER_CHARS = 3_000_000
"""Base64 characters that all map layers together may take."""
MAX_PICTURE_CHARS = 1_300_000
QUALITIES = (88, 80, 70, 60, 50, 40)
MASK_PX = 900
"""Longest side of the tissue mask whose outline is drawn."""
BINS = 48


@dataclass(frozen=True, eq=False)
class Layer:
    """One map that the page can show: `values` float32 [N], one per tile; attention has no style."""

    name: str
    label: str
    group: str
    unit: str
    values: NDArray[np.float32]
    style: MapStyle | None = None


def page_data(result: Result) -> dict[str, Any]:
    """What the page's script needs."""
    layers = map_layers(result)
    merge, bits = _fit(result, len(layers))
    cells, owner = _merged_cells(result, merge)
    view = make_view(result, PICTURE_PX, enlarge=False)
    return {
        "picture": "data:image/jpeg;base64," + _picture(view.picture),
        "box": list(view.box),
        "step": [result.grid.step_x * merge, result.grid.step_y * merge],
        "span": [result.grid.span_x, result.grid.span_y],
        "mpp": [result.slide.mpp_x, result.slide.mpp_y],
        "grid": [math.ceil(result.grid.columns / merge), math.ceil(result.grid.rows / merge)],
        "merged": merge,
        "cells": _base64(cells.astype("<u2")),
        "palettes": palettes(layers),
        "bits": bits,
        "flags": tile_flags(result, owner, len(cells)),
        "mask": _mask(result, view),
        "gallery": _gallery(result),
        "layers": [_pack(layer, result, owner, len(cells), bits) for layer in layers],
    }


def palettes(layers: list[Layer]) -> dict[str, str]:
    """The colour maps of some layers: name -> base64 of uint8 [256, 3]."""
    names = dict.fromkeys([*(layer.style.palette for layer in layers if layer.style is not None), STRETCHED])
    return {name: _base64(colour_table(name)) for name in names}


def map_layers(result: Result) -> list[Layer]:
    """Pathways in the order of every picture, then the heads' attention in multiples of the slide's average."""
    layers = [
        Layer(
            style.name,
            style.label,
            "Not validated" if style.pale else "Pathways",
            style.unit,
            result.pathways[:, style.index],
            style,
        )
        for style in result_styles(result)
    ]
    for head in result.heads:
        if head.attention is not None:
            relative = head.attention / max(float(head.attention.mean()), 1e-30)
            layers.append(
                Layer(head.name, f"Attention of {head.name}", "Attention", "times the average tile", relative)
            )
    return layers


def groups(layers: list[dict[str, Any]]) -> list[tuple[str, list[tuple[int, str]]]]:
    """The maps for the selection box: (group, [(number, label)])."""
    names = dict.fromkeys(layer["group"] for layer in layers)
    return [(name, [(i, layer["label"]) for i, layer in enumerate(layers) if layer["group"] == name]) for name in names]


def _fit(result: Result, layers: int) -> tuple[int, int]:
    """Cells to merge on a side, and bits per value, so that the layers fit `MAX_LAYER_CHARS`."""
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


def _mean_of(values: NDArray[Any], owner: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """The mean of each shown cell, float64 [count]."""
    sums = np.bincount(owner, values.astype(np.float64), count)
    return np.asarray(sums / np.maximum(np.bincount(owner, minlength=count), 1))


def _pack(layer: Layer, result: Result, owner: NDArray[np.int64], count: int, bits: int) -> dict[str, Any]:
    """A layer as JSON: the mean of each shown cell, quantised between the smallest and the largest."""
    values = _mean_of(layer.values, owner, count)
    low, high = (float(values.min()), float(values.max())) if count else (0.0, 1.0)
    top = 2**bits - 1
    codes = np.rint((values - low) / ((high - low) or 1.0) * top).astype("<u2" if bits == 16 else np.uint8)
    return {**layer_facts(layer, result), "quantised": [low, high], "data": _base64(codes)}


def layer_facts(layer: Layer, result: Result) -> dict[str, Any]:
    """How a map is shown, as JSON without its values: names, colours and their range, histogram, gallery."""
    style = layer.style
    span = colour_range(layer.values) if style is None else (style.low, style.high)
    facts: dict[str, Any] = {
        "name": layer.name,
        "label": layer.label,
        "group": layer.group,
        "unit": layer.unit,
        "range": list(span),
        "palette": STRETCHED if style is None else style.palette,
        "span": "colours stretched to this slide: its 1st to 99th percentile" if style is None else style.span,
        "title": "" if style is None else style.title,
        "pale": style is not None and style.pale,
        "scale": None if style is None or style.scale is None else list(style.scale),
    }
    if style is not None:
        facts["histogram"] = histogram(result, style)
        if result.gallery is not None:
            facts["tiles"] = [
                [[int(i), float(f"{layer.values[i]:.6g}")] for i in side[style.index] if i >= 0]
                for side in (result.gallery.highest, result.gallery.lowest)
            ]
    return facts


def histogram(result: Result, style: MapStyle) -> dict[str, Any]:
    """Tiles by score, as shown (z where there is a scale), with the range of the held-out predictions.

    `counts` [BINS] from `low` to `high`, the ends holding what lies beyond; `known` are the 1st, 50th and 99th
    percentile of the bundle's predictions on held-out sections, and `outside` the share of the slide's tiles beyond the
    outer two; both None where the bundle gives none. Tiles that summaries leave out are not counted.
    """
    values = style.shown(result.pathways[result.counted, style.index])
    quantiles = facts_of(result.validation, [style.name])[0].predictions
    known = None
    if quantiles:
        known = [float(v) for v in style.shown(np.array([quantiles[key] for key in ("p01", "p50", "p99")]))]
    ends = [*np.percentile(values, [0.1, 99.9])] if len(values) else [0.0, 1.0]
    low, high = (float(v) for v in (min([*ends, *(known or [])]), max([*ends, *(known or [])])))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(np.clip(values, low, high), BINS, (low, high))
    outside = None
    if known is not None and len(values):
        outside = float(((values < known[0]) | (values > known[2])).mean())
    return {"low": low, "high": high, "counts": counts.tolist(), "known": known, "outside": outside}


def tile_flags(result: Result, owner: NDArray[np.int64], count: int) -> dict[str, Any] | None:
    """What was seen on each shown cell, as a code into `words`, and which cells are left out (most of their tiles)."""
    if result.trust is None or not result.trust.tile_flags.any():
        return None
    left_out = _mean_of(result.trust.left_out, owner, count) > 0.5
    seen = np.zeros(count, np.int64)
    np.bitwise_or.at(seen, owner, result.trust.tile_flags.astype(np.int64))
    kinds, codes = np.unique(seen, return_inverse=True)
    return {
        "words": [TileFlag(int(kind)).label for kind in kinds],
        "codes": _base64(codes.reshape(-1).astype(np.uint8)),
        "leftOut": _base64(left_out.astype(np.uint8)),
    }


def _mask(result: Result, view: View) -> dict[str, Any] | None:
    """The tissue mask under the view, at most `MASK_PX` wide or high, one bit per pixel; None where there is none."""
    mask = result.tissue_mask
    if mask is None:
        return None
    from PIL import Image

    kx, ky = mask.shape[1] / result.slide.width, mask.shape[0] / result.slide.height
    x0, y0, x1, y1 = view.box
    left, top = math.floor(x0 * kx), math.floor(y0 * ky)
    crop = mask[top : max(top + 1, math.ceil(y1 * ky)), left : max(left + 1, math.ceil(x1 * kx))]
    box = [left / kx, top / ky, (left + crop.shape[1]) / kx, (top + crop.shape[0]) / ky]
    scale = min(1.0, MASK_PX / max(crop.shape))
    size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
    small = np.asarray(Image.fromarray(crop * np.uint8(255)).resize(size, Image.Resampling.BOX)) > 127
    return {"size": list(size), "box": box, "bits": _base64(np.packbits(small, axis=None, bitorder="little"))}


def _gallery(result: Result) -> dict[str, Any] | None:
    """The pictures of the gallery by tile, each with its place in level-0 pixels."""
    gallery = result.gallery
    if gallery is None:
        return None
    return {
        "rule": gallery.rule,
        "side": gallery.side_px,
        "mpp": gallery.mpp,
        "tiles": {
            str(tile): [*map(int, result.coords[tile]), b64encode(file).decode()]
            for tile, file in zip(gallery.tiles.tolist(), gallery.jpeg, strict=True)
        },
    }


def _base64(array: NDArray[Any]) -> str:
    return b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _picture(picture: NDArray[np.uint8]) -> str:
    """The slide as JPEG in base64, of the best quality that fits `MAX_PICTURE_CHARS`."""
    from PIL import Image

    text = ""
    for quality in QUALITIES:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality, optimize=True)
        text = b64encode(file.getvalue()).decode()
        if len(text) <= MAX_PICTURE_CHARS:
            break
    return text
