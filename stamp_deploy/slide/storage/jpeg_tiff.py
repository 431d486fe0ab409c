"""The index of a tiled TIFF: Aperio SVS and generic pyramids, one grid for each level."""

from __future__ import annotations

from pathlib import Path

from ...codecs import Coding
from ..backends import Backend, Level
from ..tiff import read_levels
from .index import StorageIndex, one_grid_per_level, only_jpeg


def jpeg_tiff(path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]) -> StorageIndex | str:
    """See providers.py. Of JPEG storage tiles.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories are damaged.
    """
    return one_grid_per_level(path, map(only_jpeg, read_levels(path, levels, numbers)))


def codec_tiff(path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]) -> StorageIndex | str:
    """See providers.py. Of storage tiles in any coding that is read one by one; level 0 is not JPEG.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories are damaged.
    """
    index = one_grid_per_level(path, read_levels(path, levels, numbers))
    if not isinstance(index.levels[0], str) and index.coding is Coding.JPEG:
        return "its tiles are coded as JPEG"
    return index
