"""What the DICOM writers share: the source image, the maps' geometry on its slide, identifiers, equipment.

Results of a DICOM slide belong to its patient and study: the writers copy those attributes from the
source, as the standard asks. UIDs are derived from the hashes of slide, bundle and configuration, so that
a re-run replaces its result in an archive instead of adding a second one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import UsageError
from ..result import Result

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
MANUFACTURER = "stamp-deploy"
CODING_SCHEME = "99STAMP"
"""Private coding scheme of concepts that have no public code: pathways, heads and their classes."""
FIRST_SERIES_NUMBER = 900
_REMEDY = "leave the dicom formats out; they describe DICOM slides"
_RUN_TIMES = {
    "ContentDate": "%Y%m%d",
    "ContentTime": "%H%M%S",
    "InstanceCreationDate": "%Y%m%d",
    "InstanceCreationTime": "%H%M%S",
    "SeriesDate": "%Y%m%d",
    "SeriesTime": "%H%M%S",
    "ContributionDateTime": "%Y%m%d%H%M%S",
}
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
        The slide is no DICOM whole-slide image, or does not say where it lies on the glass.
    """
    _open(slide)


def find_source(result: Result) -> Dataset:
    """The slide's full-resolution instance, without pixels.

    Raises
    ------
    UsageError
        As `check`; or the full resolution is split over several files.
    """
    path = result.source_path
    if path is None:
        raise UsageError("the result no longer knows where its slide lay", remedy="run infer again on the slide")
    size = (result.slide.width, result.slide.height)
    for candidate in _series(_open(path), path):
        if (int(candidate.TotalPixelMatrixColumns), int(candidate.TotalPixelMatrixRows)) == size:
            return _complete(candidate)
    raise UsageError(f"no instance of the series is {size[0]} x {size[1]} px", path=path, remedy=_REMEDY)


def _open(path: Path) -> Dataset:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        first = pydicom.dcmread(path if path.is_file() else min(path.glob("*.dcm")), stop_before_pixels=True)
    except (InvalidDicomError, ValueError, OSError) as error:
        raise UsageError("the slide is not DICOM", path=path, remedy=_REMEDY) from error
    if first.SOPClassUID != WHOLE_SLIDE_IMAGE:
        raise UsageError(f"{first.SOPClassUID.name} is no whole-slide image", path=path, remedy=_REMEDY)
    for keyword in ("ImageOrientationSlide", "TotalPixelMatrixOriginSequence", "FrameOfReferenceUID"):
        if keyword not in first:
            raise UsageError(f"the slide lacks {keyword}, so results cannot be placed on it", path=path, remedy=_REMEDY)
    return first


def _complete(source: Dataset) -> Dataset:
    """Give the source, in memory, the type 2 attributes (required, possibly empty) that converters leave out.

    They are copied into the results, empty as they are.
    """
    for keyword in _TYPE_2:
        if keyword not in source:
            setattr(source, keyword, None)
    return source


def _series(first: Dataset, path: Path) -> list[Dataset]:
    """The volume instances of the slide's series, the opened one first."""
    import pydicom

    found = [first]
    folder = path if path.is_dir() else path.parent
    for other in sorted(folder.glob("*.dcm")):
        try:
            instance = pydicom.dcmread(other, stop_before_pixels=True)
        except Exception:  # a neighbour that is no DICOM is none of our business
            continue
        same = instance.get("SeriesInstanceUID") == first.SeriesInstanceUID
        if same and instance.SOPInstanceUID != first.SOPInstanceUID and "VOLUME" in instance.get("ImageType", ()):
            found.append(instance)
    return found


def geometry(result: Result, source: Dataset) -> Geometry:
    """Pixel spacing, orientation and position of a map with one pixel a grid cell.

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


def uid(result: Result, *parts: str) -> str:
    """A UID that is the same for the same slide, bundle, configuration and parts."""
    from pydicom.uid import generate_uid

    identity = [result.slide.sha256, result.bundle.sha256, result.config_sha256, *parts]
    return str(generate_uid(entropy_srcs=identity))


def equipment(result: Result) -> dict[str, Any]:
    """The General Equipment arguments that highdicom's objects take."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": f"{MANUFACTURER} {result.bundle.name}"[:64],
        "software_versions": __version__,
        "device_serial_number": result.bundle.sha256[:16],
    }


def make_repeatable(dataset: Dataset, result: Result) -> None:
    """Date the object by the run and derive its free UIDs: the same result gives the same bytes."""
    moment = datetime.fromisoformat(result.started_utc) if result.started_utc else None
    dimensions = uid(result, "dimensions", dataset.SOPInstanceUID)

    def settle(_: Dataset, element: DataElement) -> None:
        if element.keyword == "DimensionOrganizationUID":
            element.value = dimensions
        elif moment is not None and element.keyword in _RUN_TIMES:
            element.value = moment.strftime(_RUN_TIMES[element.keyword])

    dataset.walk(settle)
    if moment is not None:
        dataset.TimezoneOffsetFromUTC = "+0000"


def code(value: str, meaning: str) -> Any:
    """A concept of the private scheme; code values hold at most 16 characters, so long ones are hashed."""
    from hashlib import sha256

    from highdicom.sr import CodedConcept

    short = value if 0 < len(value) <= 16 and value.isascii() else sha256(value.encode()).hexdigest()[:16]
    return CodedConcept(value=short, scheme_designator=CODING_SCHEME, meaning=(meaning or "unnamed")[:64])
