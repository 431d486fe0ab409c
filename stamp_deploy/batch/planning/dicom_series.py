"""Which DICOM files belong together: a whole-slide image is one series of several files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ...system.files import special_kind

SeriesOf = Callable[[Path], str]
"""Gives the series of a file: equal for files of one slide, and a text of its own for what is no DICOM."""
DEFLATED = "1.2.840.10008.1.2.1.99"


def one_per_series(paths: Iterable[Path], series_of: SeriesOf) -> list[Path]:
    """The first file of each DICOM series."""
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(series_of(path), path)
    return list(first.values())


def read_series(path: Path) -> str:
    """The Series Instance UID of a file, or its path where it has none: the probe then says what is wrong with it.

    This parses the file: a batch calls it in the child process that also opens slides (`SafeProbe.series`).
    """
    if special_kind(path) is not None:
        return str(path)
    import pydicom

    try:
        # a deflated data set has no bound in memory, and none is a slide
        if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED:
            return str(path)
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(data.get("SeriesInstanceUID", path))
    except Exception:
        return str(path)
