"""What a slide's tiles are, by one route or another: the measure of "right output"."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .world import MPP, TILE_PX

ROUTES_MAY_DIFFER = 12.0
"""Mean difference of a tile between decoders, of 255: chroma may be spread in other ways."""
Tiles = dict[tuple[int, int], NDArray[np.uint8]]


def read_tiles(slide: Path, *, route: str | None = None, threads: int = 1) -> tuple[str, Tiles]:
    """(route, every tile that could be read, by its corner)."""
    from stamp_deploy.grid import make_grid, select_tiles
    from stamp_deploy.slide import open_slide
    from stamp_deploy.tiles import TileStatus, open_tiles

    found: Tiles = {}
    with open_slide(slide, mpp=MPP, route=route) as opened:
        tiles = select_tiles(make_grid(opened, target_mpp=MPP, tile_px=TILE_PX), None, 0.0)
        with open_tiles(opened, tiles, batch=8, threads=threads) as source:
            for batch in source:
                for pixels, (x, y), status in zip(batch.pixels, batch.coords, batch.status, strict=True):
                    if status == TileStatus.OK:
                        found[int(x), int(y)] = pixels.copy()
        return opened.route.name, found


def routes_agree(slide: Path) -> str:
    """Whether the compiled tiler and OpenSlide show the same picture; what differs, or ""."""
    from stamp_deploy.errors import StampError

    route, ours = read_tiles(slide)
    if route != "jpeg-tiff":
        return ""
    try:
        _, theirs = read_tiles(slide, route="openslide")
    except StampError:
        return ""  # no second opinion
    for corner in ours.keys() & theirs.keys():
        if (apart := float(np.abs(ours[corner].astype(int) - theirs[corner]).mean())) > ROUTES_MAY_DIFFER:
            return f"the tile at {corner} is {apart:.0f} of 255 from OpenSlide's"
    return ""


def others_unchanged(slide: Path, sound: Path, spoilt: Iterable[tuple[int, int, int, int]]) -> str:
    """Whether tiles away from the spoilt rectangles (x, y, w, h) are as in the sound slide, with 1 and 2 threads."""
    _, one = read_tiles(slide, threads=1)
    _, two = read_tiles(slide, threads=2)
    _, want = read_tiles(sound)
    if one.keys() != two.keys() or any(not np.array_equal(one[corner], two[corner]) for corner in one):
        return "the pixels depend on the number of threads"
    margin = 16  # chroma of a neighbour may be spread so far
    spoilt = list(spoilt)
    for (x, y), tile in want.items():
        away = all(
            x + TILE_PX + margin <= left
            or left + w + margin <= x
            or y + TILE_PX + margin <= top
            or top + h + margin <= y
            for left, top, w, h in spoilt
        )
        if away and not ((x, y) in one and np.array_equal(one[x, y], tile)):
            return f"the tile at {x, y} changed, {'' if (x, y) in one else 'or went, '}away from the damage"
    return ""
