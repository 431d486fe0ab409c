"""The pages of a TIFF, walked once: a chain of directories may be a circle, and would then have no end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_PAGES = 10_000
"""More directories than any slide has; walking them takes seconds."""


def tiff_pages(tiff: Any) -> Iterator[Any]:
    """The `tifffile.TiffPage` objects of an open `tifffile.TiffFile`, in the order of the chain.

    Raises
    ------
    ValueError
        The chain comes back to a directory that it has passed, or has more than `MAX_PAGES`.
    """
    import tifffile

    passed: set[int] = set()
    for page in tiff.pages:
        if page.offset in passed:
            raise ValueError("the chain of directories is a circle")
        if len(passed) >= MAX_PAGES:
            raise ValueError(f"there are more than {MAX_PAGES} directories")
        passed.add(page.offset)
        if isinstance(page, tifffile.TiffPage):
            yield page
