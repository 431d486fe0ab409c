"""The DICOM objects that the writers make: who made them, when, under which UIDs.

An object is dated by its slide, and its UID is the hash of its bytes: the same result gives the same object, and one
that differs in anything gets a UID of its own, so that no archive holds two contents under one UID.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..result import Result

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

MANUFACTURER = "stamp-deploy"
CODING_SCHEME = "99STAMP"
"""Private coding scheme of concepts that have no public code: pathways, heads and their classes."""
FIRST_SERIES_NUMBER = 900
_DATES = {
    "ContentDate": "date",
    "ContentTime": "time",
    "InstanceCreationDate": "date",
    "InstanceCreationTime": "time",
    "SeriesDate": "date",
    "SeriesTime": "time",
    "ContributionDateTime": "both",
}
"""Attributes that highdicom fills with the time of the run."""
_NO_DATE = ("19700101", "000000")
_UNNAMED = "2.25.0"
"""Stands for the UIDs that are made of the hash, while it is made."""


def uid(result: Result, source: Dataset, *parts: str) -> str:
    """A UID that is the same for the same scores of the same slide by the same software, and for the same parts."""
    from pydicom.uid import generate_uid

    engine = result.engine
    scores = sha256(result.coords.tobytes() + result.pathways.tobytes() + repr(result.heads).encode()).hexdigest()
    identity = [result.slide.sha256, result.bundle.sha256, result.config_sha256, scores, __version__]
    identity += [engine.name, engine.version, engine.precision, *result.pathway_names]
    identity += [str(source.get(name)) for name in ("PatientID", "StudyInstanceUID", "SOPInstanceUID")]
    return str(generate_uid(entropy_srcs=[*identity, *parts]))


def equipment(result: Result) -> dict[str, Any]:
    """The General Equipment arguments that highdicom's objects take."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": f"{MANUFACTURER} {result.bundle.name}"[:64],
        "software_versions": __version__,
        "device_serial_number": result.bundle.sha256[:16],
    }


def save(dataset: Dataset, sources: Sequence[Dataset], path: Path) -> None:
    """Date an object by its slide, refer it to every part of it, name it by the hash of its bytes, and write it."""
    from pydicom.uid import UID, generate_uid

    date, time, zone = _moment(sources[0])
    values = {"date": date, "time": time, "both": date + time}

    def settle(_: Dataset, element: DataElement) -> None:
        if element.keyword in _DATES:
            element.value = values[_DATES[element.keyword]]
        elif element.keyword == "DimensionOrganizationUID":
            element.value = _UNNAMED
        elif element.keyword in ("ReferencedInstanceSequence", "SourceImageSequence"):
            _refer_to_parts(element, sources)

    dataset.walk(settle)
    dataset.TimezoneOffsetFromUTC = zone
    if not zone:
        del dataset.TimezoneOffsetFromUTC
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(_UNNAMED)
    draft = io.BytesIO()
    dataset.save_as(draft, enforce_file_format=True)
    name = generate_uid(entropy_srcs=[sha256(draft.getbuffer()).hexdigest()])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = name
    dimensions = str(generate_uid(entropy_srcs=[name, "dimensions"]))

    def name_dimensions(_: Dataset, element: DataElement) -> None:
        if element.keyword == "DimensionOrganizationUID":
            element.value = dimensions

    dataset.walk(name_dimensions)
    path.parent.mkdir(exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _refer_to_parts(element: DataElement, sources: Sequence[Dataset]) -> None:
    """Beside the first part of a concatenation, name the others, which highdicom does not take."""
    named = {str(item.get("ReferencedSOPInstanceUID")) for item in element.value}
    if str(sources[0].SOPInstanceUID) not in named:
        return
    first = next(i for i in element.value if i.get("ReferencedSOPInstanceUID") == sources[0].SOPInstanceUID)
    for other in sources[1:]:
        if str(other.SOPInstanceUID) not in named:
            item = deepcopy(first)
            item.ReferencedSOPInstanceUID = other.SOPInstanceUID
            element.value.append(item)


def _moment(source: Dataset) -> tuple[str, str, str]:
    """(date, time, offset from UTC or "") of a slide: when it was scanned, by what it states of that first."""
    both = re.match(r"(\d{8})(\d{6})", str(source.get("AcquisitionDateTime") or ""))
    zone = re.fullmatch(r"[+-]\d{4}", str(source.get("TimezoneOffsetFromUTC") or ""))
    offset = zone[0] if zone else ""
    if both:
        return both[1], both[2], offset
    for kind in ("Acquisition", "Content", "Series", "Study"):
        date = re.match(r"\d{8}", str(source.get(f"{kind}Date") or ""))
        time = re.match(r"\d{6}", str(source.get(f"{kind}Time") or ""))
        if date:
            return date[0], time[0] if time else _NO_DATE[1], offset
    return *_NO_DATE, ""


def code(value: str, meaning: str) -> Any:
    """A concept of the private scheme; code values hold at most 16 characters, so long ones are hashed."""
    from highdicom.sr import CodedConcept

    short = value if 0 < len(value) <= 16 and value.isascii() else sha256(value.encode()).hexdigest()[:16]
    return CodedConcept(value=short, scheme_designator=CODING_SCHEME, meaning=(meaning or "unnamed")[:64])
