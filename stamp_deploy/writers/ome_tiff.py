"""maps.ome.tiff: the score maps as a pyramid with physical pixel sizes, one channel per pathway.

One pixel is one grid cell at full resolution; NaN where there is no tile. `PhysicalSizeX` and
`PhysicalSizeY` are the step of the grid in microns, so that QuPath and Fiji measure right.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..maps import value_map
from ..result import Result
from .geojson import tile_id

NAME = "ome-tiff"
NEEDS = ("tifffile",)
_BLOCK_PX = 256
_SMALLEST_PX = 128


def write(result: Result, directory: Path) -> list[Path]:
    """Write maps.ome.tiff: float32, axes CYX, deflate; pyramid levels in SubIFDs."""
    import tifffile

    stack = np.stack([value_map(result, result.pathways[:, i]) for i in range(len(result.pathway_names))])
    levels = pyramid(stack)
    step_um = result.grid.step_x * result.slide.mpp_x, result.grid.step_y * result.slide.mpp_y
    metadata = {
        "axes": "CYX",
        "Name": result.slide.name,
        "Channel": {"Name": list(result.pathway_names)},
        "PhysicalSizeX": step_um[0],
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": step_um[1],
        "PhysicalSizeYUnit": "µm",
        "Description": f"Pathway scores ({result.score_unit}). {result.research_use}",
        "UUID": tile_id(result.slide.sha256, -1, -1),
    }
    path = directory / "maps.ome.tiff"
    with tifffile.TiffWriter(path, ome=True, bigtiff=stack.nbytes > 2**31) as file:
        for number, level in enumerate(levels):
            scale = 2**number
            file.write(
                level,
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=0 if number == 0 else 1,
                metadata=metadata if number == 0 else None,
                photometric="minisblack",
                tile=(_BLOCK_PX, _BLOCK_PX),
                compression="zlib",
                resolution=(1e4 / (step_um[0] * scale), 1e4 / (step_um[1] * scale)),
                resolutionunit="CENTIMETER",
                software=False if number else "stamp-deploy",
                datetime=False,
            )
    return [path]


def pyramid(stack: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Levels of float32 [C, rows, columns], each half the one before, down to 128 px or less."""
    levels = [stack]
    while max(levels[-1].shape[1:]) > _SMALLEST_PX:
        levels.append(halve(levels[-1]))
    return levels


def halve(stack: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over 2 x 2 cells, of those that hold a score; NaN where none does."""
    channels, rows, columns = stack.shape
    high, wide = math.ceil(rows / 2), math.ceil(columns / 2)
    padded = np.full((channels, 2 * high, 2 * wide), np.nan, np.float32)
    padded[:, :rows, :columns] = stack
    blocks = padded.reshape(channels, high, 2, wide, 2)
    known = np.isfinite(blocks)
    total, count = np.where(known, blocks, 0).sum(axis=(2, 4)), known.sum(axis=(2, 4))
    mean: NDArray[np.float32] = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean
