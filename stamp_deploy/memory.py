"""Giving memory back to the operating system."""

from __future__ import annotations

import contextlib
import ctypes


def release_memory() -> None:
    """Return what the C library keeps of freed memory; does nothing where it cannot (glibc can)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
