"""A disk, a network or memory that fails while a slide is read: it says nothing of the slide, and may pass.

Readers tell damage and such a fault in the same way. So what fails is read once more through a fresh handle; where the
message or the operating system speaks of a fault, it is tried again after pauses, and then stops the slide with its own
cause. Only what fails in a file that can be read is damage, and counts against the budget of unreadable tiles.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ReadError, SlideError

WAITS_S = (0.0, 0.5, 2.0, 5.0)
"""Seconds before each further try; without a sign of a fault only the first is made."""
_MEMORY = re.compile(r"cannot allocate|unable to allocate|out of memory|not enough memory", re.IGNORECASE)
_SYSTEM = re.compile(
    r"input/output error|\bi/o error|stale (nfs )?file handle|timed? ?out|host is down|no route to host"
    r"|transport endpoint|no such device|no such file|resource temporarily unavailable|too many open files"
    r"|network is (down|unreachable)|permission denied|software caused connection abort|connection reset",
    re.IGNORECASE,
)


def read_again(
    read: Callable[[], NDArray[np.uint8]], error: SlideError | MemoryError, path: Path, parts: Iterable[Path]
) -> NDArray[np.uint8]:
    """Read what failed once more, and with pauses where the fault is not the slide's.

    Parameters
    ----------
    read : callable
        Reads the region, through a handle of its own.
    error : SlideError or MemoryError
        How it failed.
    path : Path
        The slide, for messages.
    parts : iterable of Path
        The files that it is read from.

    Raises
    ------
    SlideError
        The region is damaged.
    ReadError
        The disk, the network or memory failed each time.
    """
    parts = list(parts)
    fault = fault_of(error, parts)
    for wait_s in WAITS_S if fault else WAITS_S[:1]:
        time.sleep(wait_s)
        try:
            return read()
        except (SlideError, MemoryError) as again:
            error = again
            fault = fault_of(again, parts) or fault
    if fault is None:
        raise error
    raise ReadError(
        f"cannot be read: {fault}, {len(WAITS_S) + 1} times",
        path=path,
        remedy="free some memory, or run fewer slides at once"
        if fault == "out of memory"
        else "check the disk or network that holds the slide, then run it again",
    ) from error


def fault_of(error: SlideError | MemoryError, parts: Iterable[Path]) -> str | None:
    """The fault of disk, network or memory behind a reader's error, in words; None for damage."""
    if isinstance(error, MemoryError) or _MEMORY.search(error.cause):
        return "out of memory"
    said = _SYSTEM.search(error.cause)
    if said:
        return said[0].lower()
    for part in parts:
        try:
            handle = os.open(part, os.O_RDONLY)
            try:
                size = os.fstat(handle).st_size
                for offset in (0, size // 2, max(0, size - 1)):
                    os.pread(handle, 1, offset)
            finally:
                os.close(handle)
        except OSError as system:
            return (system.strerror or "input/output error").lower()
    return None
