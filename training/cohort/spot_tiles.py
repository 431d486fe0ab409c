"""Tiles centred on spots, cut by the project's own tiler: training sees the pixels that inference sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stamp_deploy.errors import DataError, SlideError
from stamp_deploy.grid import Grid, TileSet, make_grid
from stamp_deploy.slide import Slide
from stamp_deploy.tiles import TileStatus, open_tiles
from stamp_deploy.tiles.region_reader import RegionReader

BATCH = 64


@dataclass(frozen=True)
class CutReport:
    """How tiles were read.

    Attributes
    ----------
    route, why : str
        As in a slide's read plan.
    at_edge : int
        Tiles that reach beyond the image; what is missing is white.
    upsampled : float
        How many times the pixels were enlarged; 1 where they were not.
    """

    route: str
    why: str
    at_edge: int
    upsampled: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"route": self.route, "why": self.why, "at_edge": self.at_edge, "upsampled": round(self.upsampled, 4)}


def spot_tiles(grid: Grid, centres: NDArray[np.float64]) -> TileSet:
    """The tiles of `grid`'s size that are centred on spots, in the order of the spots.

    Parameters
    ----------
    grid : Grid
        Gives the span of a tile; its rows and columns only group neighbours.
    centres : float64 [N, 2]
        (x, y), level-0 pixels. Corners are rounded, so a tile lies at most half a level-0 pixel off its spot.
    """
    corners = np.rint(centres - np.array([grid.span_x, grid.span_y]) / 2).astype(np.int64)
    place = np.maximum(np.floor(corners / np.array([grid.step_x, grid.step_y])), 0).astype(np.int32)
    n = len(centres)
    return TileSet(grid, place[:, 0], place[:, 1], corners, np.ones(n, np.float32), n, 0)


def cut_tiles(
    slide: Slide,
    centres: NDArray[np.float64],
    out: NDArray[np.uint8],
    *,
    target_mpp: float,
    allow_upsampling: bool = False,
) -> CutReport:
    """Fill `out` with the tiles of spots.

    Parameters
    ----------
    slide : Slide
    centres : float64 [N, 2]
        (x, y), level-0 pixels.
    out : uint8 [N, T, T, 3]
        Row i becomes the tile of spot i; may be mapped from the disk.
    target_mpp : float
        Microns per pixel of the tiles.
    allow_upsampling : bool
        Whether an image coarser than `target_mpp` may be enlarged, by bicubic interpolation.

    Raises
    ------
    DataError
        The image is coarser than the tiles by more than 5 % and may not be enlarged.
    SlideError
        A tile cannot be decoded.
    """
    tile_px = out.shape[1]
    finest = max(slide.mpp_xy)
    enlarge = finest / target_mpp if finest > 1.05 * target_mpp else 1.0
    if enlarge > 1 and not allow_upsampling:
        raise DataError(
            f"has {finest:.4g} um per pixel, coarser than the tiles' {target_mpp:g}: pixels would have to be invented",
            path=slide.path,
            remedy=f"state mpp = {math.ceil(finest * 100) / 100:g} and a tile_px to match, use a finer image, "
            "or state allow_upsampling = true",
        )
    read_px = tile_px if enlarge == 1 else max(1, round(tile_px / enlarge))
    # upsampled: exactly read_px pixels of tile_px * target_mpp / read_px microns cover the same square
    grid = make_grid(slide, target_mpp=target_mpp if enlarge == 1 else tile_px * target_mpp / read_px, tile_px=read_px)
    tileset = spot_tiles(grid, centres)
    far = tileset.coords + np.ceil([grid.span_x, grid.span_y]).astype(np.int64)
    inside = (tileset.coords >= 0).all(axis=1) & (far <= [slide.width, slide.height]).all(axis=1)
    sink = _Sink(out, read_px)
    route, why = slide.route.name, slide.route.reason
    if inside.any():
        index = np.flatnonzero(inside)
        with open_tiles(slide, tileset.part(index), batch=BATCH) as source:
            route, why = source.plan.route, source.plan.why
            for batch in source:
                _refuse_bad(batch.status, slide)
                sink.put(index[batch.index], batch.pixels)
    edge = np.flatnonzero(~inside)
    if edge.size:
        # the compiled tiler wants tiles that start inside the image; the general reader fills with white
        reader = RegionReader(slide, tileset.part(edge))
        pixels = np.empty((BATCH, read_px, read_px, 3), np.uint8)
        for start in range(0, len(edge), BATCH):
            part = np.arange(start, min(start + BATCH, len(edge)))
            _refuse_bad(reader.fill(part, pixels), slide)
            sink.put(edge[part], pixels[: len(part)])
    return CutReport(route, why, int(edge.size), enlarge)


class _Sink:
    """Writes tiles to their rows, enlarged where they were read smaller."""

    def __init__(self, out: NDArray[np.uint8], read_px: int) -> None:
        self._out, self._read_px = out, read_px

    def put(self, rows: NDArray[np.int64], pixels: NDArray[np.uint8]) -> None:
        tile_px = self._out.shape[1]
        for row, tile in zip(rows, pixels, strict=True):
            if self._read_px == tile_px:
                self._out[row] = tile
            else:
                picture = Image.fromarray(tile).resize((tile_px, tile_px), Image.Resampling.BICUBIC)
                self._out[row] = np.asarray(picture)


def _refuse_bad(status: NDArray[np.uint8], slide: Slide) -> None:
    bad = int((status != TileStatus.OK).sum())
    if bad:
        raise SlideError(f"{bad} tiles of a batch cannot be decoded", path=slide.path, remedy="copy the image again")
