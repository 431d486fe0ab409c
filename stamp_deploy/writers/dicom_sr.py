"""dicom/calls-sr.dcm: a DICOM structured report (TID 1500) of slide-level calls and pathway means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..heads import HeadCall
from ..pathway_names import display_name
from ..result import Result
from .dicom_object import FIRST_SERIES_NUMBER, MANUFACTURER, code, save, uid
from .dicom_source import check, sources_of

if TYPE_CHECKING:
    from pydicom import Dataset

NAME = "dicom-sr"
NEEDS = ("highdicom", "pydicom")

__all__ = ["NAME", "NEEDS", "check", "write"]


def write(result: Result, directory: Path) -> list[Path]:
    """Write an unverified, preliminary Comprehensive 3D SR: a measurement group per head, one for the pathways.

    Raises
    ------
    UsageError
        The slide is not DICOM.
    """
    with sources_of(result) as sources:
        return _write(result, sources, directory)


def _write(result: Result, sources: Sequence[Dataset], directory: Path) -> list[Path]:
    from highdicom.sr import Comprehensive3DSR, MeasurementReport
    from pydicom.sr.coding import Code

    source = sources[0]
    groups = [_head_group(result, source, head) for head in result.heads]
    if result.pathway_names and len(result.coords):
        groups.append(_pathway_group(result, source))
    report = MeasurementReport(
        observation_context=_context(result, source),
        procedure_reported=Code("104157003", "SCT", "Light microscopy procedure"),
        imaging_measurements=groups,
        referenced_images=sources,
    )
    document = Comprehensive3DSR(
        evidence=sources,
        content=report,
        series_instance_uid=uid(result, source, "sr"),
        series_number=FIRST_SERIES_NUMBER + 2,
        sop_instance_uid=uid(result, source, "sr", "calls"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    document.SeriesDescription = "Molecular calls, research use only"
    document.ManufacturerModelName = f"{MANUFACTURER} {result.bundle.name}"[:64]
    document.SoftwareVersions = __version__
    path = directory / "dicom" / "calls-sr.dcm"
    save(document, sources, path)
    return [path]


def _context(result: Result, source: Dataset) -> Any:
    """Who observed (this software, as a device) and what (the specimen, where the slide names one)."""
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
        SubjectContext,
        SubjectContextSpecimen,
    )
    from pydicom.sr.codedict import codes

    device = ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=uid(result, source, "device"),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=result.bundle.name[:64],
            serial_number=result.bundle.sha256[:16],
        ),
    )
    subject = None
    specimens = source.get("SpecimenDescriptionSequence")
    if specimens:
        subject = SubjectContext(
            subject_class=codes.DCM.Specimen,
            subject_class_specific_context=SubjectContextSpecimen(
                uid=specimens[0].SpecimenUID,
                identifier=specimens[0].SpecimenIdentifier,
                container_identifier=source.get("ContainerIdentifier") or None,
            ),
        )
    return ObservationContext(observer_device_context=device, subject_context=subject)


def _algorithm(result: Result, name: str) -> Any:
    from highdicom.sr import AlgorithmIdentification

    return AlgorithmIdentification(
        name=f"{result.bundle.name}: {name}"[:64],
        version=result.software.get("stamp-deploy", "unknown"),
        parameters=[
            f"bundle.json SHA-256 {result.bundle.sha256}",
            f"slide SHA-256 {result.slide.sha256}",
            f"configuration SHA-256 {result.config_sha256}",
            f"engine {result.engine.name} {result.engine.version} {result.engine.precision}",
            result.research_use,
        ],
    )


def _head_group(result: Result, source: Dataset, head: HeadCall) -> Any:
    """One head: its value with the interval's limits, every class's probability, and the call."""
    from highdicom.sr import (
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    numbers = [(head.value_name, head.value)]
    if head.interval is not None:
        numbers += [
            ("Lower limit of 95 % interval", head.interval[0]),
            ("Upper limit of 95 % interval", head.interval[1]),
        ]
    if head.kind == "multiclass":
        numbers += [(f"P({name})", p) for name, p in zip(head.classes, head.probabilities, strict=True)]
    measurements = [
        Measurement(name=code(meaning, meaning), value=float(value), unit=codes.UCUM.NoUnits)
        for meaning, value in numbers
    ]
    called = head.call or ("No call (abstained)" if head.abstained else "No call")
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=uid(result, source, "head", head.name), identifier=head.name),
        finding_type=code(head.name, head.name),
        algorithm_id=_algorithm(result, head.name),
        measurements=measurements,
        qualitative_evaluations=[
            QualitativeEvaluation(name=code("CALL", "Slide-level call"), value=code(called, called))
        ],
    )


def _pathway_group(result: Result, source: Dataset) -> Any:
    """The mean of every pathway over the scored tiles."""
    from highdicom.sr import Measurement, MeasurementsAndQualitativeEvaluations, TrackingIdentifier
    from pydicom.sr.codedict import codes

    measurements = [
        Measurement(
            name=code(name, display_name(name)),
            value=row["mean"],
            unit=codes.UCUM.NoUnits,
            derivation=codes.SCT.Mean,
        )
        for name, row in result.summary().items()
    ]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=uid(result, source, "pathways"), identifier="Pathway scores"),
        finding_type=code("PATHWAYS", "Pathway scores over the slide"),
        algorithm_id=_algorithm(result, "pathways"),
        measurements=measurements,
    )
