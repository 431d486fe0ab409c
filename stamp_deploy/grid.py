"""The grid of tiles over a slide: pure arithmetic from sizes and resolutions to coordinates.

A tile of `tile_px` at `target_mpp` covers `tile_px * target_mpp / mpp` level-0 pixels, which is rarely a
whole number: positions are rounded from the exact product, so that errors never add up along a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import SlideError, UsageError
from .units import MAX_MPP, MIN_MPP, believable_mpp

MAX_TILES = 50_000_000


class HasTissue(Protocol):
    """What the grid needs of a tissue mask."""

    def tile_fractions(self, coords: NDArray[np.int64], span_x: float, span_y: float) -> NDArray[np.float32]: ...


class HasSize(Protocol):
    """What the grid needs of a slide: its level-0 size and resolution."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def mpp_xy(self) -> tuple[float, float]: ...


@dataclass(frozen=True)
class Grid:
    """Tiles in rows and columns over level 0.

    Attributes
    ----------
    slide_width, slide_height : int
        Level-0 pixels.
    mpp_x, mpp_y : float
        Microns per level-0 pixel.
    target_mpp : float
        Microns per pixel of a tile.
    tile_px : int
        Side of a tile, in its own pixels.
    overlap_px : int
        Pixels (of the tile) that neighbours share.

    Raises
    ------
    UsageError
        A value is out of range.
    """

    slide_width: int
    slide_height: int
    mpp_x: float
    mpp_y: float
    target_mpp: float
    tile_px: int
    overlap_px: int = 0

    def __post_init__(self) -> None:
        if self.slide_width < 1 or self.slide_height < 1:
            raise UsageError(f"a slide of {self.slide_width} x {self.slide_height} px has no tiles")
        for name in ("mpp_x", "mpp_y", "target_mpp"):
            value = getattr(self, name)
            if not believable_mpp(value):
                raise UsageError(f"{name} is {value:g}, not {MIN_MPP:g} to {MAX_MPP:g} microns per pixel")
        if self.tile_px < 1:
            raise UsageError(f"tile size {self.tile_px} px is not possible", remedy="use 1 px or more")
        if not 0 <= self.overlap_px < self.tile_px:
            raise UsageError(f"overlap {self.overlap_px} px is not possible", remedy=f"use 0 to {self.tile_px - 1}")
        if self.columns * self.rows > MAX_TILES:
            raise UsageError(f"the grid would hold {self.columns * self.rows} tiles", remedy="use larger tiles")

    @property
    def span_x(self) -> float:
        """Level-0 pixels that a tile covers in x."""
        return self.tile_px * self.target_mpp / self.mpp_x

    @property
    def span_y(self) -> float:
        """Level-0 pixels that a tile covers in y."""
        return self.tile_px * self.target_mpp / self.mpp_y

    @property
    def step_x(self) -> float:
        """Level-0 pixels from one tile to its right neighbour."""
        return (self.tile_px - self.overlap_px) * self.target_mpp / self.mpp_x

    @property
    def step_y(self) -> float:
        """Level-0 pixels from one tile to the one below."""
        return (self.tile_px - self.overlap_px) * self.target_mpp / self.mpp_y

    @property
    def columns(self) -> int:
        """Columns: as many as start inside the slide and are at least half inside it; 1 at least."""
        return _count(self.slide_width, self.span_x, self.step_x)

    @property
    def rows(self) -> int:
        """Rows: as many as start inside the slide and are at least half inside it; 1 at least."""
        return _count(self.slide_height, self.span_y, self.step_y)

    def coords(self, columns: NDArray[np.integer], rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Top-left corners (x, y) in level-0 pixels: int64 [N, 2], each rounded half to even."""
        x = np.rint(np.asarray(columns, np.float64) * self.step_x)
        y = np.rint(np.asarray(rows, np.float64) * self.step_y)
        return np.stack([x, y], axis=-1).astype(np.int64)


def _count(length: int, span: float, step: float) -> int:
    return max(1, math.floor((length - span / 2) / step) + 1)


@dataclass(frozen=True, eq=False)
class TileSet:
    """The tiles of a grid that are to be scored, in row-major order.

    Attributes
    ----------
    grid : Grid
    columns, rows : int32 [N]
        Grid positions.
    coords : int64 [N, 2]
        Top-left corners (x, y), level-0 pixels.
    tissue_fraction : float32 [N]
        Share of each tile that is tissue, 0 to 1; 1 where no mask was used.
    total : int
        Tiles in the whole grid.
    skipped_background : int
        Tiles left out for lack of tissue: total - N.
    """

    grid: Grid
    columns: NDArray[np.int32]
    rows: NDArray[np.int32]
    coords: NDArray[np.int64]
    tissue_fraction: NDArray[np.float32]
    total: int
    skipped_background: int

    def __len__(self) -> int:
        return len(self.coords)

    def part(self, which: NDArray[np.int64] | slice) -> TileSet:
        """Some of the tiles, by their positions, int64 [M], or a slice of them.

        `total` and `skipped_background` are still the whole's.
        """
        return replace(
            self,
            columns=self.columns[which],
            rows=self.rows[which],
            coords=self.coords[which],
            tissue_fraction=self.tissue_fraction[which],
        )


def make_grid(slide: HasSize, *, target_mpp: float, tile_px: int, overlap_px: int = 0) -> Grid:
    """The grid of a slide at the model's resolution and tile size.

    Raises
    ------
    SlideError
        The slide is coarser than the model wants by more than 5 %: pixels would have to be invented.
    """
    mpp_x, mpp_y = slide.mpp_xy
    if max(mpp_x, mpp_y) > 1.05 * target_mpp:
        raise SlideError(
            f"the slide has {max(mpp_x, mpp_y):g} um/px, coarser than the {target_mpp:g} um/px that the model wants",
            remedy="use a scan of higher magnification, or a bundle for this resolution",
        )
    return Grid(slide.width, slide.height, mpp_x, mpp_y, target_mpp, tile_px, overlap_px)


def select_tiles(grid: Grid, mask: HasTissue | None, min_fraction: float) -> TileSet:
    """The tiles of which at least `min_fraction` is tissue; all of them where `mask` is None."""
    rows, columns = np.divmod(np.arange(grid.columns * grid.rows), grid.columns)
    coords = grid.coords(columns, rows)
    if mask is None:
        fractions = np.ones(len(coords), np.float32)
        keep = np.ones(len(coords), bool)
    else:
        fractions = mask.tile_fractions(coords, grid.span_x, grid.span_y)
        keep = (fractions >= min_fraction) & (fractions > 0)
    return TileSet(
        grid=grid,
        columns=columns[keep].astype(np.int32),
        rows=rows[keep].astype(np.int32),
        coords=coords[keep],
        tissue_fraction=fractions[keep],
        total=len(coords),
        skipped_background=int(len(coords) - keep.sum()),
    )
