"""What identifies a slide: one hash of everything in it that can be scored.

Of a slide in one file this is the file's SHA-256. A slide of several files has one hash, whichever of them was named:
of DICOM the SOP Instance UIDs and pixel data of its volume images (an archive writes other headers each time it sends
them), of MIRAX and Hamamatsu VMS the files that hold the pixels and where they belong.
"""

from __future__ import annotations

import configparser
import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..errors import SlideError
from .dicom import pixel_data, volume_instances
from .held import HeldFiles

_CHUNK = 1 << 22


def slide_sha256(path: Path, vendor: str, held: HeldFiles | None = None) -> str:
    """SHA-256 that identifies a slide, hex; of a slide in one file through the descriptor that is held of it.

    Raises
    ------
    SlideError
        A file of it cannot be read.
    """
    try:
        if vendor == "dicom":
            return _dicom(path)
        parts = slide_files(path, vendor)
        if parts == [path]:
            return _file(path if held is None else held.duplicate()).hexdigest()
        return _together((part.name, _file(part).digest()) for part in parts)
    except OSError as error:
        raise SlideError(
            f"cannot be read: {error.strerror or 'input/output error'}",
            path=path,
            remedy="check the disk and the rights; a network disk may answer again later",
        ) from error


def slide_files(path: Path, vendor: str) -> list[Path]:
    """The files that a slide is scored from, sorted by name: itself alone, for most formats."""
    if vendor == "dicom":
        return [instance.path for instance in volume_instances(path)] or [path]
    if vendor == "mirax":
        folder = path.with_suffix("")
        kept = [f for f in sorted(folder.iterdir()) if f.name.lower() == "slidedat.ini" or f.suffix.lower() == ".dat"]
        return kept or [path]
    if vendor == "hamamatsu" and path.suffix.lower() in (".vms", ".vmu"):
        return sorted({path, *_named_in(path)}, key=lambda part: part.name)
    return [path]


def _named_in(path: Path) -> Iterable[Path]:
    """Files beside an index file that its entries name."""
    index = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        index.read_string(path.read_text(encoding="utf-8", errors="replace"))
    except configparser.Error:
        return []
    values = {value for section in index.sections() for _, value in index.items(section) if "/" not in value}
    return [path.parent / value for value in values if value and (path.parent / value).is_file()]


def _dicom(path: Path) -> str:
    instances = volume_instances(path)
    if not instances:
        return _file(path).hexdigest()
    rows = []
    for instance in sorted(instances, key=lambda item: item.sop_uid):
        digest = hashlib.sha256()
        for part in pixel_data(instance.path):
            digest.update(part)
        rows.append((instance.sop_uid, digest.digest()))
    return _together(rows)


def _together(parts: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + content)
    return digest.hexdigest()


def _file(source: Path | int) -> hashlib._Hash:
    digest = hashlib.sha256()
    with open(source, "rb") as handle:  # closes the descriptor, too
        handle.seek(0)
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest
