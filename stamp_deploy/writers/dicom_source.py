"""The slide that DICOM results describe: its full-resolution instance, and where a map lies on its glass.

Results of a DICOM slide belong to its patient and study: the writers copy those attributes from the source, as the
standard asks.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..result import Result
from ..system.files import refuse_special
from ..system.quiet import is_of_a_library, place

if TYPE_CHECKING:
    from pydicom import Dataset

WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_REMEDY = "leave the dicom formats out; they describe DICOM slides"
DEFLATED = "1.2.840.10008.1.2.1.99"
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


@dataclass(frozen=True)
class Geometry:
    """Where the map's pixels lie on the slide: highdicom's sequences."""

    pixel_measures: Any
    orientation: Any
    position: Any


def check(slide: Path) -> None:
    """Refuse, before any tile is scored, a slide that the DICOM writers could not describe.

    Raises
    ------
    UsageError
        The slide is no DICOM whole-slide image, does not say where it lies on the glass, or states a patient or
        study in a form that no DICOM object may have.
    """
    first = _open(slide)
    for keyword in _TYPE_2:
        _check_value(first, keyword, slide)


def find_sources(result: Result) -> list[Dataset]:
    """The slide's full-resolution instance, without pixels; of one that is split (a concatenation), all parts in order.

    It does not depend on which file of the series was named.

    Raises
    ------
    UsageError
        As `check`; or a part is missing.
    """
    path = result.source_path
    if path is None:
        raise UsageError("the result no longer knows where its slide lay", remedy="run infer again on the slide")
    size = (result.slide.width, result.slide.height)
    first = _open(path)
    fitting = [
        _complete(one)
        for one in _series(first, path)
        if (int(one.get("TotalPixelMatrixColumns") or 0), int(one.get("TotalPixelMatrixRows") or 0)) == size
    ]
    if not fitting:
        raise UsageError(f"no instance of the series is {size[0]} x {size[1]} px", path=path, remedy=_REMEDY)
    fitting.sort(key=lambda one: (int(one.get("InConcatenationNumber") or 0), str(one.SOPInstanceUID)))
    whole = fitting[0].get("ConcatenationUID")
    if whole is None:
        return fitting[:1]
    parts = [one for one in fitting if one.get("ConcatenationUID") == whole]
    expected = int(parts[0].get("InConcatenationTotalNumber") or len(parts))
    if len(parts) < expected:
        raise UsageError(
            f"{len(parts)} of the {expected} parts of the full resolution are there",
            path=path,
            remedy="copy the whole series into one folder",
        )
    return parts


@contextmanager
def sources_of(result: Result) -> Iterator[list[Dataset]]:
    """`find_sources`, for a block that makes objects of them: what highdicom refuses is told without quoting it.

    Raises
    ------
    UsageError
        As `find_sources`; or some attribute that a result must carry breaks the standard.
    """
    sources = find_sources(result)
    try:
        yield sources
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        if not is_of_a_library(traceback.extract_tb(error.__traceback__)[-1].filename):
            raise
        raise UsageError(
            f"the slide's DICOM header cannot be carried into a result ({place(error)})",
            path=result.source_path,
            remedy="check the header with `dciodvfy`; " + _REMEDY,
        ) from error


def _header(path: Path) -> Dataset:
    """A file's header, its dates and texts unchecked."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    refuse_special(path, UsageError)
    if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED:
        raise InvalidDicomError  # inflated it may take any amount of memory, and no slide is coded so
    return pydicom.dcmread(path, stop_before_pixels=True)


def _open(path: Path) -> Dataset:
    from pydicom.errors import InvalidDicomError

    try:
        first = _header(path) if path.is_file() else _first_of(path)
        kind = first.SOPClassUID
    except (InvalidDicomError, ValueError, OSError, EOFError, AttributeError) as error:
        raise UsageError("the slide is not DICOM", path=path, remedy=_REMEDY) from error
    if kind != WHOLE_SLIDE_IMAGE:
        raise UsageError(f"{kind.name} is no whole-slide image", path=path, remedy=_REMEDY)
    for keyword in ("ImageOrientationSlide", "TotalPixelMatrixOriginSequence", "FrameOfReferenceUID"):
        if keyword not in first:
            raise UsageError(f"the slide lacks {keyword}, so results cannot be placed on it", path=path, remedy=_REMEDY)
    return first


def _first_of(folder: Path) -> Dataset:
    for path in _dicom_files(folder):
        header = _header(path)
        if "VOLUME" in header.get("ImageType", ()):
            return header
    raise ValueError("no DICOM")


def _dicom_files(folder: Path) -> Iterator[Path]:
    """Files of a folder that start as DICOM files do, whatever their name."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as handle:
                handle.seek(128)
                if handle.read(4) == b"DICM":
                    yield path


def _check_value(source: Dataset, keyword: str, path: Path) -> None:
    """Whether an attribute may be copied into a result; its value is not quoted."""
    from pydicom import DataElement, config
    from pydicom.datadict import dictionary_VR

    try:
        if keyword in source:
            element = source[keyword]
            DataElement(element.tag, dictionary_VR(element.tag), element.value, validation_mode=config.RAISE)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{keyword} is not in the form that DICOM asks for, so results cannot carry it",
            path=path,
            remedy="correct it in the slide's header; " + _REMEDY,
        ) from error


def _complete(source: Dataset) -> Dataset:
    """Give the source, in memory, the type 2 attributes (required, possibly empty) that converters leave out.

    They are copied into the results, empty as they are.
    """
    for keyword in _TYPE_2:
        if keyword not in source:
            setattr(source, keyword, None)
    return source


def _series(first: Dataset, path: Path) -> Iterator[Dataset]:
    """The volume instances of the slide's series, the opened one first."""
    yield first
    for other in _dicom_files(path if path.is_dir() else path.parent):
        try:
            instance = _header(other)
        except Exception:  # a neighbour that is no DICOM is none of our business
            continue
        same = instance.get("SeriesInstanceUID") == first.SeriesInstanceUID
        if same and instance.SOPInstanceUID != first.SOPInstanceUID and "VOLUME" in instance.get("ImageType", ()):
            yield instance


def geometry(result: Result, source: Dataset) -> Geometry:
    """Pixel spacing, orientation and position of a map with one pixel per grid cell.

    DICOM places an image by the centre of its first pixel (PS3.3 C.8.12.6), so the map's lies half a cell
    less half a source pixel further along rows and columns than the source's.
    """
    import highdicom as hd

    cell_mm = np.array([result.grid.step_y * result.slide.mpp_y, result.grid.step_x * result.slide.mpp_x]) / 1000
    pixel_mm = np.array([result.slide.mpp_y, result.slide.mpp_x]) / 1000
    orientation = [float(v) for v in source.ImageOrientationSlide]
    along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
    origin = source.TotalPixelMatrixOriginSequence[0]
    start = np.array(
        [
            float(origin.XOffsetInSlideCoordinateSystem),
            float(origin.YOffsetInSlideCoordinateSystem),
            float(origin.get("ZOffsetInSlideCoordinateSystem") or 0.0),
        ]
    )
    shift = (cell_mm - pixel_mm) / 2
    centre = start + along_row * shift[1] + along_column * shift[0]
    return Geometry(
        hd.PixelMeasuresSequence(pixel_spacing=cell_mm.tolist(), slice_thickness=_thickness_mm(source)),
        hd.PlaneOrientationSequence("SLIDE", orientation),
        hd.PlanePositionSequence("SLIDE", image_position=centre.tolist(), pixel_matrix_position=(1, 1)),
    )


def _thickness_mm(source: Dataset) -> float:
    groups = source.get("SharedFunctionalGroupsSequence")
    measures = groups[0].get("PixelMeasuresSequence") if groups else None
    value = measures[0].get("SliceThickness") if measures else None
    # 4 um is the usual section; the attribute is required and some scanners leave it out.
    return float(value) if value else 0.004
