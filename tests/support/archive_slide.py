"""A DICOM slide as a scanner sends it to an archive: two levels and a label, of a patient, a case and a container."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

from .position_slide import Layout, write_dicom

NAME, BORN = "Mustermann", "19031224"
SMALL = Layout(columns=10, rows=6)


@dataclass(frozen=True)
class ScannedSlide:
    """Its files, and what it is known by."""

    levels: tuple[Path, Path]
    label: Path
    study: str
    series: str
    accession: str
    container: str

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.levels, self.label)

    @property
    def uids(self) -> list[str]:
        """SOP Instance UIDs of the levels, sorted."""
        return sorted(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in self.levels)


def scan(folder: Path, number: int = 1, *, day: str = "20260102", layout: Layout = SMALL) -> ScannedSlide:
    """Slide number so-and-so of a case of its own, in files whose names say nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series = (generate_uid(entropy_srcs=["archive", kind, str(number)]) for kind in ("study", "series"))
    accession, container = f"S26-{number:04d}", f"S26-{number:04d}-A1"
    files = [folder / f"{number}-{name}.dcm" for name in ("0", "1", "label")]
    for path, factor in zip(files, (1, 2, 2), strict=True):
        write_dicom(path, replace(layout, mpp_x=layout.mpp_x * factor, mpp_y=layout.mpp_y * factor))
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = f"{NAME}^Max", "P1", BORN, "M"
        data.StudyInstanceUID, data.SeriesInstanceUID = study, series
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = day, "080000", "1", accession
        data.ReferringPhysicianName, data.ContainerIdentifier = "", container
        uid = generate_uid(entropy_srcs=["archive", str(number), path.name])
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
        if path.name.endswith("label.dcm"):
            data.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
        data.save_as(path, enforce_file_format=True)
    return ScannedSlide((files[0], files[1]), files[2], study, series, accession, container)
