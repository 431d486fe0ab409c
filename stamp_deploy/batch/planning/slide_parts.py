"""The files that may belong to a slide: it is complete, and unchanged, when all of them are."""

from __future__ import annotations

from pathlib import Path

from ...slide.dicom import is_dicom
from .dicom_series import SeriesOf
from .folder import DICOM_EXTENSIONS


def slide_parts(path: Path, series_of: SeriesOf) -> list[Path]:
    """A slide's own file and the others that may be part of it, told by name: nothing is opened but DICOM.

    MRXS has a folder of its own name; VMS, VMU and AFI name files beside them that begin with their stem; the
    instances of a DICOM series lie in one folder.

    Raises
    ------
    OSError
        A folder cannot be read.
    """
    kind = path.suffix.lower()
    if kind == ".mrxs" and path.with_suffix("").is_dir():
        return [path, *path.with_suffix("").iterdir()]
    if kind in (".vms", ".vmu", ".afi"):
        return [path, *(p for p in path.parent.iterdir() if p != path and p.name.startswith(path.stem) and p.is_file())]
    if kind in DICOM_EXTENSIONS or is_dicom(path):
        series = series_of(path)
        others = (p for p in path.parent.iterdir() if p != path and not p.name.startswith("."))
        return [
            path,
            *(p for p in others if (p.suffix.lower() in DICOM_EXTENSIONS or is_dicom(p)) and series_of(p) == series),
        ]
    return [path]
