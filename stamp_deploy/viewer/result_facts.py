"""What the page is told of a result: how each map is shown, in the words and colours of the report, without its values.

Values travel apart, as numbers in binary, when a map is looked at. What stands here and there comes from the functions
that make report.html, so that a score never looks different in the two.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from ..result import Result
from ..result_files import small_thumbnail
from ..writers.picture import OPACITY, result_styles
from ..writers.report_data import layer_facts, map_layers, palettes, tile_flags
from ..writers.report_words import call_words, significant, trust_words, validation_words, warning_words
from .tile_maker import TileMaker


def result_facts(result: Result) -> dict[str, Any]:
    """The facts of a result, as JSON values."""
    record_slide, grid = result.slide, result.grid
    layers = map_layers(result)
    n = len(result.coords)
    styles = result_styles(result)
    return {
        "name": record_slide.name,
        "sha256": record_slide.sha256,
        "size": [record_slide.width, record_slide.height],
        "mpp": [record_slide.mpp_x, record_slide.mpp_y],
        "size_mm": [
            round(record_slide.width * record_slide.mpp_x / 1000, 1),
            round(record_slide.height * record_slide.mpp_y / 1000, 1),
        ],
        "step": [grid.step_x, grid.step_y],
        "span": [grid.span_x, grid.span_y],
        "grid": [grid.columns, grid.rows],
        "tiles": n,
        "opacity": OPACITY,
        "palettes": palettes(layers),
        "layers": [layer_facts(layer, result) for layer in layers],
        "flags": tile_flags(result, np.arange(n), n),
        "gallery": _gallery(result),
        "trust": trust_words(result),
        "validation": validation_words(result, styles),
        "calls": [call_words(head) for head in result.heads],
        "bundle": result.bundle.name,
        "pfm": result.bundle.pfm_id,
        "started_utc": result.started_utc,
        "warnings": warning_words(result),
        "research_use": result.research_use,
        "tissue_mm2": significant(result.summaries[0].tissue_mm2) if result.summaries else None,
    }


def cells_bytes(result: Result) -> bytes:
    """(column, row) of each tile, little-endian uint32 [N, 2]."""
    return result.tile_cells.astype("<u4").tobytes()


def layer_bytes(result: Result, number: int) -> bytes:
    """The values of a map in the order of `result_facts`, little-endian float32 [N].

    Raises
    ------
    IndexError
        There is no such map.
    """
    if number < 0:
        raise IndexError(number)
    return map_layers(result)[number].values.astype("<f4").tobytes()


def gallery_picture(result: Result, tile: int) -> bytes:
    """The picture of a tile of the gallery, JPEG.

    Raises
    ------
    KeyError
        The gallery does not show it.
    """
    gallery = result.gallery
    places = np.empty(0, np.int64) if gallery is None else np.flatnonzero(gallery.tiles == tile)
    if gallery is None or not len(places):
        raise KeyError(tile)
    return gallery.jpeg[int(places[0])]


def thumbnail(result: Result) -> bytes:
    """The slide's small picture for the list, JPEG."""
    file = io.BytesIO()
    Image.fromarray(small_thumbnail(result.thumbnail)).save(file, "JPEG", quality=80)
    return file.getvalue()


def levels_facts(maker: TileMaker) -> list[dict[str, Any]]:
    """The zoom levels, the coarsest first."""
    return [
        {
            "width": level.width,
            "height": level.height,
            "tile": [level.tile_width, level.tile_height],
            "tiles": [level.columns, level.rows],
        }
        for level in maker.levels
    ]


def _gallery(result: Result) -> dict[str, Any] | None:
    gallery = result.gallery
    if gallery is None:
        return None
    return {
        "rule": gallery.rule,
        "mpp": gallery.mpp,
        "places": {str(tile): [*map(int, result.coords[tile])] for tile in gallery.tiles.tolist()},
    }
