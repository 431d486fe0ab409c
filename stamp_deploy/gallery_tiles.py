"""Reads the tiles of a gallery from the slide, at level 0, while it is open."""

from __future__ import annotations

import io
import math
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import SlideError
from .gallery import MAX_PATHWAYS, Gallery, as_table, extremes
from .grid import Grid, TileSet
from .map_style import map_styles
from .prepare import Prepared
from .slide import Slide
from .tiles import TileSource, TileStatus, open_tiles

MAX_SIDE_PX = 448
"""A tile of 112 um at 0.25 um/px; larger tiles are reduced to it."""
MAX_BYTES = 2_400_000
"""All pictures together: with maps and slide they fit a page of 8 MB."""
QUALITIES = (85, 75, 65, 55, 45)
"""JPEG qualities, tried until the pictures fit."""
WRITERS = {"report", "hdf5"}
BATCH = 8


def take_gallery(
    prepared: Prepared,
    index: NDArray[np.int64],
    counted: NDArray[np.bool_],
    pathways: NDArray[np.float32],
) -> Gallery | None:
    """Choose the gallery's tiles and read them; None where no format wants it, or no tile could be read.

    Parameters
    ----------
    prepared : Prepared
        Its tiles have all been read; its slide is open.
    index : int64 [N]
        Positions in the tile set of the readable tiles, ascending.
    counted : bool [N]
        Those that summaries count.
    pathways : float32 [N, P]
        Their scores.

    Raises
    ------
    SlideError
        A decoder did not come back.
    ReadError
        The disk, the network or memory failed, and went on failing.
    """
    if WRITERS.isdisjoint(prepared.options.writers):
        return None
    clock = time.perf_counter()
    tiles, bundle = prepared.tiles, prepared.bundle
    cells = np.stack([tiles.columns[index], tiles.rows[index]], axis=1).astype(np.int64)
    fraction = tiles.tissue_fraction[index]
    none = np.empty(0, np.int64)
    highest, lowest = [none] * pathways.shape[1], [none] * pathways.shape[1]
    for style in map_styles(bundle.pathways, pathways, "", bundle.validation)[:MAX_PATHWAYS]:
        highest[style.index], lowest[style.index] = extremes(pathways[:, style.index], fraction, cells, counted)
    wanted = np.unique(np.concatenate([none, *highest, *lowest]))
    pictures = _read(prepared, tiles, index[wanted]) if len(wanted) else {}
    prepared.seconds["gallery"] = time.perf_counter() - clock
    if not pictures:
        return None
    grid = fine_grid(tiles.grid)
    kept = np.array([number for number in wanted.tolist() if int(index[number]) in pictures], np.int64)
    files, reduced = fit([pictures[int(index[number])] for number in kept.tolist()])
    highest, lowest = ([row[np.isin(row, kept)] for row in rows] for rows in (highest, lowest))
    side = -(-grid.tile_px // reduced)
    return Gallery(as_table(highest), as_table(lowest), kept, files, side, grid.target_mpp * grid.tile_px / side)


def fine_grid(grid: Grid) -> Grid:
    """A grid whose tiles cover the same tissue with as many pixels as level 0 has, at most `MAX_SIDE_PX`."""
    side = max(1, min(MAX_SIDE_PX, math.floor(min(grid.span_x, grid.span_y) + 1e-6)))
    mpp = grid.target_mpp * grid.tile_px / side
    return Grid(grid.slide_width, grid.slide_height, grid.mpp_x, grid.mpp_y, mpp, side)


def _read(prepared: Prepared, tiles: TileSet, numbers: NDArray[np.int64]) -> dict[int, bytes]:
    """JPEG files of tiles, by their position in the tile set; what cannot be read is left out."""
    chosen = replace(tiles.part(numbers), grid=fine_grid(tiles.grid))
    source = _open(prepared.slide, chosen, prepared)
    files = {}
    try:
        for batch in source:
            for i in np.flatnonzero(batch.status == TileStatus.OK):
                files[int(numbers[batch.index[i]])] = _jpeg(Image.fromarray(batch.pixels[i]), QUALITIES[0])
    except SlideError:
        prepared.source.hung |= source.hung  # then the slide must stay open under the decoder
        raise
    finally:
        source.close()
    return files


def _open(slide: Slide, tiles: TileSet, prepared: Prepared) -> TileSource:
    left_s = None if math.isinf(slide.deadline) else max(0.0, slide.deadline - time.monotonic())
    return open_tiles(slide, tiles, batch=BATCH, threads=prepared.options.threads, exact=True, time_limit_s=left_s)


def fit(files: list[bytes]) -> tuple[tuple[bytes, ...], int]:
    """The same pictures in at most `MAX_BYTES`, and how many times smaller their sides are.

    They are coded again at lower qualities, and smaller if need be.
    """
    coded, reduced = files, 1
    for quality in QUALITIES[1:]:
        if sum(map(len, coded)) <= MAX_BYTES:
            break
        coded = [_jpeg(Image.open(io.BytesIO(file)), quality) for file in files]
    while sum(map(len, coded)) > MAX_BYTES:
        reduced *= 2
        coded = [_jpeg(Image.open(io.BytesIO(file)).reduce(reduced), QUALITIES[1]) for file in files]
    return tuple(coded), reduced


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()
