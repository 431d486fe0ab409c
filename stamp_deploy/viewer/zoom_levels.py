"""The zoom levels that the browser sees: every power of two, each from the native level or picture that serves it best.

OpenSeadragon finds the level for a zoom by powers of two. A level of the file within 2 % of one is passed on as it is
stored; the others are made from the next finer level. Levels as coarse as the result's own picture come from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..codecs import Coding
from ..slide.backends import Level
from ..slide.storage.index import StorageIndex

MADE_TILE_PX = 256
NEAR = 0.02
"""How far a level's downsample may lie from a power of two, as a share of it."""
STORED_SIDES_PX = (128, 1024)
"""Storage tiles of other sizes are not passed on: too many requests, or too much at once."""
PICTURE = -1
"""`source` of a level that comes from the result's picture."""


@dataclass(frozen=True)
class ZoomLevel:
    """One zoom level.

    Attributes
    ----------
    width, height : int
        The whole slide, pixels of the level.
    tile_width, tile_height : int
        Of its tiles, pixels; the last of a row or column is smaller.
    downsample : float
        Level-0 pixels per pixel, across.
    source : int
        The native level that it comes from; `PICTURE` for the result's picture.
    stored : bool
        Whether its tiles are the storage tiles of that level.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    downsample: float
    source: int
    stored: bool

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Tiles in a column."""
        return -(-self.height // self.tile_height)

    def box(self, column: int, row: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of a tile, pixels of the level."""
        left, top = column * self.tile_width, row * self.tile_height
        return left, top, min(left + self.tile_width, self.width), min(top + self.tile_height, self.height)


def zoom_levels(
    levels: Sequence[Level], storage: StorageIndex | None, picture_px: tuple[int, int]
) -> tuple[ZoomLevel, ...]:
    """The zoom levels of a slide, the coarsest first: one tile.

    Parameters
    ----------
    levels : sequence of Level
        Of the file.
    storage : StorageIndex or None
        Where its storage tiles lie.
    picture_px : (int, int)
        Width and height of the result's picture.
    """
    width, height = levels[0].width, levels[0].height
    made = [_level(k, levels, storage, picture_px) for k in range(_steps(width, height) + 1)]
    return tuple(reversed(made))


def picture_levels(size: tuple[int, int], picture_px: tuple[int, int]) -> tuple[ZoomLevel, ...]:
    """The zoom levels of a slide that is not at hand: those that its picture is fine enough for.

    Parameters
    ----------
    size : (int, int)
        Width and height of level 0, pixels.
    picture_px : (int, int)
        Of the picture.
    """
    width, height = size
    steps = _steps(width, height)
    finest = next((k for k in range(steps + 1) if 2**k * 2 > width / picture_px[0]), steps)
    return tuple(_made(width, height, k, PICTURE) for k in range(steps, finest - 1, -1))


def _steps(width: int, height: int) -> int:
    """How often the slide is halved until it fits one tile."""
    return max(0, (-(-max(width, height) // MADE_TILE_PX) - 1).bit_length())


def _level(k: int, levels: Sequence[Level], storage: StorageIndex | None, picture_px: tuple[int, int]) -> ZoomLevel:
    width, height = levels[0].width, levels[0].height
    near = next((lv for lv in levels if abs(lv.downsample_x / 2**k - 1) <= NEAR), None)
    if near is not None:
        side = _stored_tile(near.index, storage)
        tile = side or (MADE_TILE_PX, MADE_TILE_PX)
        return ZoomLevel(near.width, near.height, *tile, near.downsample_x, near.index, stored=side is not None)
    if 2**k >= width / picture_px[0]:
        return _made(width, height, k, PICTURE)
    finer = max((lv for lv in levels if lv.downsample_x <= 2**k), key=lambda lv: lv.downsample_x)
    return _made(width, height, k, finer.index)


def _made(width: int, height: int, k: int, source: int) -> ZoomLevel:
    scale = 2**k
    return ZoomLevel(-(-width // scale), -(-height // scale), MADE_TILE_PX, MADE_TILE_PX, scale, source, stored=False)


def _stored_tile(index: int, storage: StorageIndex | None) -> tuple[int, int] | None:
    """Size of the storage tiles of a level, where they can be passed on; None where they cannot."""
    grids = "" if storage is None else storage.levels[index]
    if isinstance(grids, str) or len(grids) != 1 or grids[0].origin_x or grids[0].origin_y:
        return None
    grid = grids[0]
    if grid.coding is not Coding.JPEG:
        return None
    low, high = STORED_SIDES_PX
    whole = low <= min(grid.tile_width, grid.tile_height) and max(grid.tile_width, grid.tile_height) <= high
    return (grid.tile_width, grid.tile_height) if whole else None
