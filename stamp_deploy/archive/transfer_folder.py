"""The folder that pynetdicom streams what it receives into: it keeps no account of a file whose transfer fails."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..atomic import STALE_S, disk_errors, leftovers, staging_name, sweep

_NAME = "transfer"


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Make the temporary files of this process in a folder: pynetdicom can be told by nothing else where it streams."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder.absolute())
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def transfer_folder(beside: Path) -> Iterator[None]:
    """Receive into a folder beside a path, on its disk; whatever is left in it is removed.

    Raises
    ------
    DiskError
        It cannot be made.
    """
    place = beside.with_name(staging_name(_NAME))
    with disk_errors(beside):
        place.mkdir(mode=0o700)
    try:
        with temporary_files_in(place):
            yield
    finally:
        shutil.rmtree(place, ignore_errors=True)


def sweep_transfers(folder: Path) -> None:
    """Remove what killed processes were receiving in `folder`; what is young may still be arriving."""
    for place in leftovers(folder / _NAME):
        old = time.time() - place.stat().st_mtime > STALE_S
        sweep(place, "*")
        if old:
            with contextlib.suppress(OSError):  # something in it is young
                place.rmdir()
