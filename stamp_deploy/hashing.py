"""SHA-256 of files and folders."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces, as 64 hexadecimal digits.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_lines(folder: Path) -> bytes:
    """The files of a folder as ``sha256sum`` writes them, sorted by path: one line "sha256  relative/name" a file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return b"".join(
        f"{sha256_file(path)}  ".encode() + os.fsencode(path.relative_to(folder).as_posix()) + b"\n" for path in paths
    )


def folder_sha256(folder: Path) -> str:
    """One hash for a folder: that of its `hash_lines`."""
    return hashlib.sha256(hash_lines(folder)).hexdigest()
