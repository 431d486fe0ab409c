"""Ventana BIF out of the JPEG streams of a tiled TIFF, with or without overlap, named from either side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from .format_factory import Page, set_colours, write_page

Area = tuple[int, int, int, int]
"""Column, row, columns and rows, storage tiles."""


def write_bif(
    path: Path,
    pages: Sequence[Page],
    areas: Sequence[Area],
    *,
    overlap: tuple[int, int] = (0, 0),
    directions: tuple[str, str] = ("RIGHT", "UP"),
    mpp: float = 0.5,
    focal_planes: int = 1,
    change: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write pages whose downsamples are powers of two.

    Parameters
    ----------
    overlap : (int, int)
        What the scanner measured, pixels of level 0; every other joint of a direction says one pixel more.
    directions : (str, str)
        How joints across and down are named: RIGHT or LEFT, UP or DOWN.
    change : sequence of (str, str)
        Replacements in the XML of level 0.
    """
    side = pages[0].side
    bottom = max(row + down for _, row, _, down in areas)
    infos = "".join(_info(area, bottom, side, overlap, directions) for area in areas)
    origins = "".join(f'<AOI{i} OriginX="{c * side}" OriginY="{r * side}"/>' for i, (c, r, _, _) in enumerate(areas))
    encoded = (
        f'<?xml version="1.0"?><EncodeInfo Ver="2"><SlideStitchInfo>{infos}</SlideStitchInfo>'
        f"<AoiOrigin>{origins}</AoiOrigin></EncodeInfo>"
    )
    for old, new in change:
        assert old in encoded
        encoded = encoded.replace(old, new)
    scan = f'<iScan Magnification="20" ScanRes="{mpp:g}" Z-layers="{focal_planes}" UserName="Doe"/>'
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        label = np.full((32, 64, 3), 200, np.uint8)
        writer.write(label, photometric="rgb", metadata=None, description="Label Image", extratags=[_xml(scan)])
        for number, page in enumerate(pages):
            scale = round(pages[0].width / page.width)
            texts = {"description": f"level={number} mag={20 / scale:g} quality=90"}
            write_page(writer, page, padded=True, extratags=[_xml(encoded)] if number == 0 else [], **texts)
    set_colours(path, [None, *(page.photometric for page in pages)])
    return path


def _xml(text: str) -> tuple[int, int, int, bytes, bool]:
    return 700, 1, len(text), text.encode(), True


def _info(area: Area, bottom: int, side: int, overlap: tuple[int, int], directions: tuple[str, str]) -> str:
    left, row_0, across, down = area
    joints = []
    for row in range(down):
        for column in range(across):
            if column + 1 < across:
                pair = (row, column), (row, column + 1)
                joints.append(_joint(area, pair, directions[0], overlap[0] + bool(overlap[0]) * (column % 2), 0))
            if row > 0:
                pair = (row, column), (row - 1, column)
                joints.append(_joint(area, pair, directions[1], 0, overlap[1]))
    return (
        f'<ImageInfo AOIScanned="1" AOIIndex="0" Width="{side}" Height="{side}" NumRows="{down}" NumCols="{across}" '
        f'Pos-X="{left * side}" Pos-Y="{(bottom - row_0 - down) * side}.0">'
        f"{''.join(joints)}</ImageInfo>"
    )


def _joint(area: Area, pair: tuple[tuple[int, int], tuple[int, int]], direction: str, x: int, y: int) -> str:
    one, two = (_number(area, *place) for place in (pair if direction in ("RIGHT", "UP") else pair[::-1]))
    return (
        f'<TileJointInfo FlagJoined="1" Confidence="90" Direction="{direction}" Tile1="{one}" Tile2="{two}" '
        f'OverlapX="{x}" OverlapY="{y}"/>'
    )


def _number(area: Area, row: int, column: int) -> int:
    """From the bottom left, every other row from right to left."""
    _, _, across, down = area
    up = down - 1 - row
    return up * across + (across - 1 - column if up % 2 else column) + 1
