"""The tissue tiles that an export is judged on; some of them travel with the bundle as its golden tiles."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import UsageError
from stamp_deploy.spread import spread

if TYPE_CHECKING:
    from PIL import Image

PARITY_TILES = 512
"""Tiles that the export itself is judged on, where so many are to be had."""
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
SLIDE_SUFFIXES = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".dcm"})


def load_tiles(
    source: Path | NDArray[np.uint8], tile_px: int, mpp: float, count: int = PARITY_TILES
) -> NDArray[np.uint8]:
    """At most `count` tiles uint8 [N, T, T, 3], evenly spread over the source.

    Parameters
    ----------
    source : path or array
        An array or .npy file of tiles; a slide; or a folder of images, which are cut into tiles without
        resizing, so they should be at the bundle's microns per pixel.

    Raises
    ------
    UsageError
        The source holds no tiles of that size.
    """
    if isinstance(source, np.ndarray):
        tiles = source
    elif source.suffix == ".npy":
        tiles = np.load(source, mmap_mode="r", allow_pickle=False)
    elif source.suffix.lower() in SLIDE_SUFFIXES:
        tiles = slide_tiles(source, tile_px, mpp, count)
    else:
        tiles = _image_tiles(source, tile_px, count)
    if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1:] != (tile_px, tile_px, 3) or len(tiles) < 2:
        raise UsageError(
            f"the tiles are {tiles.dtype} {tiles.shape}, and at least two of uint8 (N, {tile_px}, {tile_px}, 3) "
            "are needed",
            remedy="name tissue tiles with --tiles",
        )
    return np.ascontiguousarray(tiles[spread(len(tiles), count)])


def slide_tiles(path: Path, tile_px: int, mpp: float, count: int) -> NDArray[np.uint8]:
    """Tissue tiles of a slide, through the same tiler that inference uses."""
    from stamp_deploy.grid import make_grid, select_tiles
    from stamp_deploy.slide import open_slide
    from stamp_deploy.tiles import TileStatus, open_tiles
    from stamp_deploy.tissue import TissueRule, find_tissue

    found = []
    with open_slide(path) as slide:
        rule = TissueRule()
        every = select_tiles(
            make_grid(slide, target_mpp=mpp, tile_px=tile_px), find_tissue(slide, rule), rule.min_fraction
        )
        keep = spread(len(every.coords), count) if len(every.coords) else np.empty(0, np.int64)
        if len(keep):
            with open_tiles(slide, every.part(keep), batch=32) as source:
                found = [batch.pixels[batch.status == TileStatus.OK].copy() for batch in source]
    return np.concatenate(found) if found else np.empty((0, tile_px, tile_px, 3), np.uint8)


def _image_tiles(folder: Path, tile_px: int, count: int) -> NDArray[np.uint8]:
    """`count` tiles evenly spread over all images; an image without a chosen tile is not decoded."""
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    paths = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    grids = []
    for path in paths:
        with _image(path) as image:
            grids.append((image.height // tile_px, image.width // tile_px))
    first, keep = 0, spread(sum(rows * columns for rows, columns in grids), count)
    tiles = []
    for path, (rows, columns) in zip(paths, grids, strict=True):
        inside = keep[(keep >= first) & (keep < first + rows * columns)] - first
        first += rows * columns
        if len(inside) == 0:
            continue
        with _image(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        for row, column in zip(*np.divmod(inside, columns), strict=True):
            tiles.append(pixels[row * tile_px : (row + 1) * tile_px, column * tile_px : (column + 1) * tile_px])
    return np.stack(tiles) if tiles else np.empty((0, tile_px, tile_px, 3), np.uint8)


@contextmanager
def _image(path: Path) -> Iterator[Image.Image]:
    """Open a picture; PIL's limit on its size (about 179 million pixels) stays, its warning at half of that goes."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except (OSError, Image.DecompressionBombError) as error:
        raise UsageError(f"the picture cannot be read: {error}", path=path, remedy="name other tiles") from error
