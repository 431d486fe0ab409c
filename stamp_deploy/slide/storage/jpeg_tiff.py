"""The index of a tiled JPEG TIFF: Aperio SVS and generic pyramids, one grid for each level."""

from __future__ import annotations

from pathlib import Path

from ..backends import Backend, Level
from ..tiff import read_levels
from .index import StorageIndex


def jpeg_tiff(path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]) -> StorageIndex | str:
    """See providers.py.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories are damaged.
    """
    pages = read_levels(path, levels, numbers)
    return StorageIndex((path,), tuple(page if isinstance(page, str) else (page,) for page in pages))
