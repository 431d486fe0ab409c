"""dicom/tiles-seg.dcm: a DICOM Segmentation of the tiles that were scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..maps import value_map
from ..result import Result
from .dicom_object import FIRST_SERIES_NUMBER, MANUFACTURER, equipment, save, uid
from .dicom_source import check, geometry, sources_of

if TYPE_CHECKING:
    from pydicom import Dataset

NAME = "dicom-seg"
NEEDS = ("highdicom", "pydicom")

__all__ = ["NAME", "NEEDS", "check", "write"]


def write(result: Result, directory: Path) -> list[Path]:
    """Write a binary segmentation with one segment, "Scored tissue", one pixel per grid cell.

    Raises
    ------
    UsageError
        The slide is not DICOM.
    """
    with sources_of(result) as sources:
        return _write(result, sources, directory)


def _write(result: Result, sources: Sequence[Dataset], directory: Path) -> list[Path]:
    import highdicom as hd
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    source = sources[0]
    place = geometry(result, source)
    by_hand = drawn_by_hand(result)
    kinds = hd.seg.SegmentAlgorithmTypeValues
    segment = SegmentDescription(
        segment_number=1,
        segment_label="Scored tissue",
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type=kinds.SEMIAUTOMATIC if by_hand else kinds.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=(by_hand or str(result.tissue.get("rule", {}).get("method", "tissue rule")))[:64],
            version=result.software.get("stamp-deploy", "unknown"),
            family=codes.DCM.ArtificialIntelligence,
            source=MANUFACTURER,
        ),
    )
    mask = np.isfinite(value_map(result, result.tissue_fraction)).astype(np.uint8)
    image = Segmentation(
        [source],
        pixel_array=mask[None],
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_instance_uid=uid(result, source, "seg"),
        series_number=FIRST_SERIES_NUMBER + 1,
        sop_instance_uid=uid(result, source, "seg", "tiles"),
        instance_number=1,
        **equipment(result),
        pixel_measures=place.pixel_measures,
        plane_orientation=place.orientation,
        plane_positions=[place.position],
        content_label="TILES",
        content_description="Tiles that were scored; research use only",
        tile_pixel_array=True,
        tile_size=mask.shape,
        omit_empty_frames=False,
    )
    # Type 2C, and empty: a slide has no patient orientation.
    image.PatientOrientation = None
    image.SeriesDescription = "Scored tissue, research use only"
    path = directory / "dicom" / "tiles-seg.dcm"
    save(image, sources, path)
    return [path]


def drawn_by_hand(result: Result) -> str:
    """What a person drew of where the slide was scored, in words; empty where the program found it alone."""
    given = "tissue mask" if result.tissue.get("source") == "given" else ""
    restricted = "annotations" if result.tissue.get("roi", {}).get("use") == "restrict" else ""
    what = " and ".join(part for part in (given, restricted) if part)
    return f"{what} drawn by hand" if what else ""
