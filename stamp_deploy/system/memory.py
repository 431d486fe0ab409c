"""Taking memory from the operating system, and giving it back."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def release_memory() -> None:
    """Return what the C library keeps of freed memory; does nothing where it cannot (glibc can)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_memory() -> None:
    """Ask glibc to keep freed memory. Activations of tens of megabytes are otherwise mapped and zeroed at each step,
    which made a step on the CPU more than twice as slow. Other platforms are left alone."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 64 << 20)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
        mallopt(parameter, value)


def free_bytes() -> int:
    """Memory that can be taken without swapping: the machine's, or the container's where that is less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        most, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        free = min(free, int(most) - int(used))
    return max(free, 0)


def fresh_pages(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Zeros, uint8, in pages of their own: what is never written takes no memory, and all goes back when it is dropped.

    An array of the C library may lie in memory that was freed before, which is cleared, and so taken, to its end.
    """
    pages = mmap.mmap(-1, max(1, math.prod(shape)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8, math.prod(shape)).reshape(shape)
