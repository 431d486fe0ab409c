"""The pages of a TIFF, walked once: a chain of directories may be a circle, and would then have no end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import COPY_AGAIN, SlideError

IMAGE_DESCRIPTION = 270
MASK = 4
"""In a page's NewSubfileType: it is a mask of another page."""
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


def file_key(path: Path) -> tuple[int, ...]:
    """A file's identity, for caches of what was read from it.

    Raises
    ------
    SlideError
        It cannot be looked at.
    """
    with refusing_damage(path):
        stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Turn whatever reading a TIFF's directories raises into a SlideError.

    What tifffile raises on damaged ones is anything: fuzzing met TypeError, AttributeError, struct.error.
    """
    try:
        yield
    except OSError as error:
        raise SlideError(
            f"cannot be read: {error.strerror or 'input/output error'}",
            path=path,
            remedy="check the disk and the rights",
        ) from error
    except Exception as error:
        raise SlideError(
            f"its TIFF directories cannot be read: {' '.join(str(error).split())}",
            path=path,
            remedy=COPY_AGAIN,
        ) from error
