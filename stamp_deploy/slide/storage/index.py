"""The index of storage tiles: what the compiled tiler needs to know of a slide, whatever its format.

A provider (see providers.py) makes one out of a file's structure. The tiler reads offsets and sizes as they stand here,
so a provider promises that they are not negative; that they lie inside the file is checked when they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ... import _tiler
from ...codecs import Coding, StreamKind
from ..jpeg_header import YCBCR

MAX_TILE_SIDE = 16384
MIN_TILE_SIDE = 8
DCT_SCALES = (1, 2, 4, 8)


class Framing(IntEnum):
    """How a stream lies in its file, as the C core numbers it."""

    BARE = _tiler.BARE
    DICOM_ITEMS = _tiler.DICOM_ITEMS
    """A run of fragments, each with a header of 8 bytes; offset and size are the run's."""
    INTERVAL = _tiler.INTERVAL
    """A restart interval of a larger stream, with the marker that ends it."""


@dataclass(frozen=True, eq=False)
class StorageGrid:
    """A regular grid of storage tiles: a level of the pyramid, or one scanned area of it.

    Attributes
    ----------
    width, height : int
        The picture, pixels of the level; what storage tiles hold beyond it is padding.
    tile_width, tile_height : int
        A storage tile, pixels.
    photometric : int
        2 (RGB) or 6 (YCbCr), as TIFF numbers them: how the file says that its streams code colour. A stream that says
        so itself counts more.
    tables : bytes
        JPEG tables shared by all streams; empty where each has its own. Of intervals, behind the end of the tables,
        also what goes before each of them: the headers of a frame of one interval and of its scan.
    offsets, sizes : int64 [rows, columns]
        Where each storage tile lies in its file, bytes; size 0 is a tile that is left out.
    files : int32 [rows, columns]
        The file that it lies in: a number in `StorageIndex.files`.
    origin_x, origin_y : int
        Where the picture begins in its level, pixels of the level.
    framing : Framing
    coding : Coding
        What all its streams are: JPEG, which the compiled tiler decodes, or what a library decodes.
    has_differences : bool
        Whether the pixels of a compressed run are kept as differences (TIFF's predictor 2).
    absent_is_glass : bool
        What a storage tile of size 0 is: background that the format may leave out, and so white; or pixels that are
        missing, which is damage.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    photometric: int
    tables: bytes
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    absent_is_glass: bool
    framing: Framing = Framing.BARE
    origin_x: int = 0
    origin_y: int = 0
    coding: Coding = Coding.JPEG
    has_differences: bool = False
    files: NDArray[np.int32] = field(default_factory=lambda: np.zeros((1, 1), np.int32))

    def __post_init__(self) -> None:
        shape = -(-self.height // self.tile_height), -(-self.width // self.tile_width)
        if self.offsets.shape != shape or self.sizes.shape != shape:
            raise ValueError(f"{self.width} x {self.height} px need {shape} storage tiles, not {self.offsets.shape}")
        object.__setattr__(self, "files", np.ascontiguousarray(np.broadcast_to(self.files, shape)))

    def cropped(self, width: int, height: int) -> StorageGrid:
        """The top left part of the picture, `width` x `height` px at most."""
        width, height = min(width, self.width), min(height, self.height)
        rows, columns = -(-height // self.tile_height), -(-width // self.tile_width)
        return replace(
            self,
            width=width,
            height=height,
            offsets=self.offsets[:rows, :columns].copy(),
            sizes=self.sizes[:rows, :columns].copy(),
            files=self.files[:rows, :columns].copy(),
        )

    @property
    def scales(self) -> tuple[int, ...]:
        """Denominators of the decoding scales that the coding has and that divide a storage tile."""
        scales = DCT_SCALES if self.coding.is_reducible else (1,)
        return tuple(s for s in scales if self.tile_width % s == 0 and self.tile_height % s == 0)

    @property
    def in_items(self) -> bool:
        """Whether its streams lie in DICOM items."""
        return self.framing is Framing.DICOM_ITEMS

    def stream(self, scale: int = 1) -> StreamKind:
        """What its streams are, wanted at 1/scale."""
        return StreamKind(
            self.coding, self.tile_width, self.tile_height, self.photometric == YCBCR, self.has_differences, scale
        )

    @property
    def absent(self) -> NDArray[np.bool_]:
        """Storage tiles that are left out, bool [rows, columns]."""
        return np.asarray(self.sizes == 0)


@dataclass(frozen=True, eq=False)
class StorageIndex:
    """The storage tiles of a slide.

    Attributes
    ----------
    files : tuple of Path
        The files that they lie in.
    levels : tuple of (tuple of StorageGrid) or str
        Of each level its grids, which do not overlap; or why the compiled tiler cannot read that level.
    """

    files: tuple[Path, ...]
    levels: tuple[tuple[StorageGrid, ...] | str, ...]

    @property
    def coding(self) -> Coding:
        """How level 0 is coded, which must have grids."""
        grids = self.levels[0]
        assert not isinstance(grids, str)
        return grids[0].coding

    def part(self, numbers: Sequence[int]) -> StorageIndex:
        """Some of the levels, by their numbers."""
        return StorageIndex(self.files, tuple(self.levels[number] for number in numbers))

    def scales(self, level: int) -> tuple[int, ...]:
        """The decoding scales at which a level can be read; none where it cannot."""
        grids = self.levels[level]
        if isinstance(grids, str):
            return ()
        return tuple(scale for scale in DCT_SCALES if all(scale in grid.scales for grid in grids))


def only_jpeg(grid: StorageGrid | str) -> StorageGrid | str:
    """A grid that the compiled tiler decodes, or why it does not."""
    if isinstance(grid, str) or grid.coding is Coding.JPEG:
        return grid
    return f"its tiles are coded as {grid.coding}, not as JPEG"


def one_grid_per_level(path: Path, levels: Iterable[StorageGrid | str]) -> StorageIndex:
    """The index of a file whose levels are one grid each, or a sentence why not."""
    return StorageIndex((path,), tuple(level if isinstance(level, str) else (level,) for level in levels))


def any_overlap(grids: Sequence[StorageGrid]) -> bool:
    """Whether two grids of a level share a pixel."""
    return any(_overlap(a, b) for i, a in enumerate(grids) for b in grids[:i])


def _overlap(a: StorageGrid, b: StorageGrid) -> bool:
    return (
        a.origin_x < b.origin_x + b.width and b.origin_x < a.origin_x + a.width
        and a.origin_y < b.origin_y + b.height and b.origin_y < a.origin_y + a.height
    )  # fmt: skip
