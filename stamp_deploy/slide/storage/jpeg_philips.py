"""The index of a Philips TIFF: one grid for each level; storage tiles that are not there are glass."""

from __future__ import annotations

from pathlib import Path

from ..backends import Backend, Level
from ..tiff import read_levels
from .index import StorageIndex, one_grid_per_level, only_jpeg


def jpeg_philips(
    path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]
) -> StorageIndex | str:
    """See providers.py. Its pages are padded to whole storage tiles, and larger than the levels that they show.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories are damaged.
    """
    return one_grid_per_level(path, map(only_jpeg, read_levels(path, levels, numbers, vendor="philips")))
