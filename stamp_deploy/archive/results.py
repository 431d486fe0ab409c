"""The DICOM objects of finished results: what a push sends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..atomic import is_done, is_whole
from ..checks.verify import verify_result
from ..errors import DataError, UsageError
from .uids import WHOLE_SLIDE, is_uid

FOLDER = "dicom"
"""Of a result, for its DICOM objects."""


@dataclass(frozen=True)
class ResultObject:
    """One file, and what names it in an archive."""

    path: Path
    sop_class: str
    uid: str
    study: str
    series: str


def find_results(target: Path) -> list[Path]:
    """The results that a folder is, or holds: those that are whole, sorted by name.

    Raises
    ------
    UsageError
        There is none.
    """
    if not target.is_dir():
        raise UsageError("there is no such folder", path=target, remedy="name a result, or the output of a batch")
    if is_done(target):
        return [target]
    found = sorted(folder for folder in target.iterdir() if not folder.name.startswith(".") and is_whole(folder))
    if not found:
        raise UsageError("holds no finished result", path=target, remedy="name a result, or the output of a batch")
    return found


def result_objects(result: Path) -> list[ResultObject]:
    """The DICOM objects of a result that is as it was written.

    Raises
    ------
    DataError
        A file of it was changed, or is no result of ours.
    UsageError
        It has no DICOM objects.
    """
    paths = sorted((result / FOLDER).glob("*.dcm"))
    if not paths:
        raise UsageError(
            "holds no DICOM objects",
            path=result,
            remedy="score a DICOM slide with --write json,hdf5,dicom-pmap,dicom-seg,dicom-sr",
        )
    verify_result(result)
    return [_read(path) for path in paths]


def _read(path: Path) -> ResultObject:
    import pydicom

    try:
        tags = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        sop_class, uid, study, series = (str(data[tag].value) for tag in tags)
    except Exception as error:  # pydicom raises nearly anything on damaged values
        raise DataError("is no DICOM object", path=path, remedy="score the slide again") from error
    if not all(map(is_uid, (sop_class, uid, study, series))) or sop_class == WHOLE_SLIDE:
        raise DataError("is no result", path=path, remedy="score the slide again")
    return ResultObject(path, sop_class, uid, study, series)
