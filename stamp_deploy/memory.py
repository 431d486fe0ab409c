"""Taking memory from the operating system, and giving it back."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap

import numpy as np
from numpy.typing import NDArray


def release_memory() -> None:
    """Return what the C library keeps of freed memory; does nothing where it cannot (glibc can)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def fresh_pages(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Zeros, uint8, in pages of their own: what is never written takes no memory, and all goes back when it is dropped.

    An array of the C library may lie in memory that was freed before, which is cleared, and so taken, to its end.
    """
    pages = mmap.mmap(-1, max(1, math.prod(shape)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8, math.prod(shape)).reshape(shape)
