"""The index of a Hamamatsu NDPI: each restart interval of a level's one stream is a storage tile.

An interval is no stream by itself: the core puts the head of the whole before it, with the size of one interval, and
makes an end of the image of the marker behind it. Levels that OpenSlide makes itself out of finer ones have no grid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..backends import Backend, Level
from ..jpeg_header import RGB, YCBCR, stated_colours
from ..ndpi import NdpiLevel, read_ndpi
from .index import MAX_TILE_SIDE, Framing, StorageGrid, StorageIndex, one_grid_per_level

_TABLES, _LEAD = (0xDB, 0xC4), (0xC0, 0xC1, 0xDA)


def jpeg_ndpi(path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]) -> StorageIndex | str:
    """See providers.py.

    Raises
    ------
    SlideError
        What it says of a level contradicts itself, or its directories are damaged.
    """
    if path.suffix.lower() in (".vms", ".vmu"):
        return "a VMS keeps its streams in files that OpenSlide joins"
    found = {(level.width, level.height): level for level in read_ndpi(path) if level.focal_plane == 0}
    grids = [grid_of(found.get((level.width, level.height))) for level in levels]
    return one_grid_per_level(path, grids)


def grid_of(level: NdpiLevel | None) -> StorageGrid | str:
    """The grid of a level, or why there is none."""
    if level is None:
        return "it is not cut into restart intervals"
    shared = _shared(level.head)
    if shared is None or level.interval_w > MAX_TILE_SIDE:
        return "its restart intervals cannot be read one by one"
    rows, columns = -(-level.height // level.interval_h), -(-level.width // level.interval_w)
    return StorageGrid(
        width=level.width,
        height=level.height,
        tile_width=level.interval_w,
        tile_height=level.interval_h,
        photometric=RGB if stated_colours(level.head) == {RGB} else YCBCR,
        tables=shared,
        offsets=level.places.reshape(rows, columns),
        sizes=np.diff(level.places, append=level.end).reshape(rows, columns),
        absent_is_glass=False,
        framing=Framing.INTERVAL,
    )


def _shared(head: bytes) -> bytes | None:
    """The tables of a stream as a stream of their own, then what goes before each interval: None of a kind of JPEG
    that cannot be cut."""
    tables, lead, at = b"", b"", 2
    while at + 4 <= len(head):
        end = at + 2 + int.from_bytes(head[at + 2 : at + 4], "big")
        if head[at] != 0xFF or (0xC2 <= head[at + 1] <= 0xCF and head[at + 1] not in _TABLES):
            return None
        if head[at + 1] in _TABLES:
            tables += head[at:end]
        elif head[at + 1] in _LEAD:
            lead += head[at:end]
        at = end
    return b"\xff\xd8" + tables + b"\xff\xd9\xff\xd8" + lead
