"""Which slide this is: its fingerprint, the key that names its result folder, its twins.

A slide in one file is known by its bytes. A DICOM slide is known by the SOP Instance UIDs of its levels: an archive
writes other headers each time it sends them, and any of its files may be named.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...errors import SlideError
from ...slide.dicom import is_dicom
from ...system.names import cut_name

SAMPLE_BYTES = 1 << 20
STEM_CHARS, STEM_BYTES = 80, 160
"""Most of a slide's name that goes into its key: room is left for hashes, an mpp, and the prefixes of staging."""


def fingerprint(path: Path) -> str:
    """SHA-256 over the size and three samples of 1 MiB: start, middle and end.

    Cheap on slides of many GB, and stable when a slide is moved or renamed. Equal fingerprints are
    confirmed byte by byte before two slides are called the same (``same_bytes``).

    Raises
    ------
    SlideError
        When the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        digest.update(str(size).encode())
        with open(path, "rb") as file:
            for offset in sorted({0, max(0, size // 2 - SAMPLE_BYTES // 2), max(0, size - SAMPLE_BYTES)}):
                file.seek(offset)
                digest.update(file.read(SAMPLE_BYTES))
    except OSError as error:
        raise SlideError(f"the file cannot be read: {error.strerror}", path=path) from error
    return digest.hexdigest()


def slide_key(path: Path, digest: str, mpp: float | None = None) -> str:
    """Name of a slide's result folder: its stem, made safe, and 12 digits of its fingerprint.

    An mpp given by the user is part of it: with another one, the finished result is not the wanted one.
    """
    stem = cut_name(re.sub(r"[^\w.-]", "_", path.stem)[:STEM_CHARS], STEM_BYTES).lstrip(".") or "slide"
    key = f"{stem}-{digest[:12]}"
    return key if mpp is None else key_at(key, mpp)


def key_at(key: str, mpp: float) -> str:
    return f"{key}-mpp{mpp:g}"


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(4 << 20):
            yield block


def same_bytes(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_size == other.stat().st_size and all(
            a == b for a, b in zip(_blocks(one), _blocks(other), strict=True)
        )
    except (OSError, ValueError):
        return False


def whole_hash(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


class ByBytes:
    """Tells slides apart by the bytes of the file that is named."""

    def fingerprint(self, path: Path) -> str:
        """See `fingerprint`."""
        return fingerprint(path)

    def same(self, one: Path, other: Path) -> bool:
        """Whether two slides of one fingerprint are the same."""
        return same_bytes(one, other)

    def whole(self, path: Path) -> str:
        """A hash of all of it."""
        return whole_hash(path)


class ByLevels(ByBytes):
    """DICOM slides by their levels, whichever of their files is named; all others by their bytes.

    Parameters
    ----------
    levels_of : callable
        The SOP Instance UIDs of a slide's levels, sorted; none where they cannot be read.
    identity_of : callable
        The SHA-256 that identifies a slide (slide/identity.py): of DICOM, of these UIDs and the pixel data.
    """

    def __init__(self, levels_of: Callable[[Path], Sequence[str]], identity_of: Callable[[Path], str]) -> None:
        self._levels_of = levels_of
        self._identity_of = identity_of

    def fingerprint(self, path: Path) -> str:
        levels = self._levels_of(path) if is_dicom(path) else ()
        return hashlib.sha256("\n".join(levels).encode()).hexdigest() if levels else super().fingerprint(path)

    def same(self, one: Path, other: Path) -> bool:
        if not (is_dicom(one) and is_dicom(other)):
            return super().same(one, other)
        try:
            return self._identity_of(one) == self._identity_of(other)
        except SlideError:
            return False

    def whole(self, path: Path) -> str:
        return self._identity_of(path) if is_dicom(path) else super().whole(path)
