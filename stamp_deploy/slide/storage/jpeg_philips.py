"""The index of a Philips TIFF: one grid for each level; storage tiles that are not there are glass."""

from __future__ import annotations

from pathlib import Path

from ..backends import Backend, Level
from ..tiff import read_levels
from .index import StorageIndex


def jpeg_philips(
    path: Path, backend: Backend, levels: tuple[Level, ...], numbers: tuple[int, ...]
) -> StorageIndex | str:
    """See providers.py. Its pages are padded to whole storage tiles, and larger than the levels that they show.

    Raises
    ------
    SlideError
        The file is not a TIFF, or its directories are damaged.
    """
    pages = read_levels(path, levels, numbers, vendor="philips")
    return StorageIndex((path,), tuple(page if isinstance(page, str) else (page,) for page in pages))
