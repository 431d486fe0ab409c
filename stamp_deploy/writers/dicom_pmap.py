"""dicom/map-001.dcm ...: one DICOM Parametric Map a pathway, one pixel a grid cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..maps import colour_range, value_map
from ..result import Result
from .dicom_source import FIRST_SERIES_NUMBER, check, code, equipment, find_source, geometry, make_repeatable, uid
from .names import display_name

NAME = "dicom-pmap"
FILES = ("dicom/map-<number>.dcm",)
NEEDS = ("highdicom", "pydicom")
PADDING = float(np.finfo(np.float32).min)
"""Stands where there is no tile; declared as Float Pixel Padding Value."""

__all__ = ["FILES", "NAME", "NEEDS", "check", "write"]


def write(result: Result, directory: Path) -> list[Path]:
    """Write one Parametric Map a pathway, numbered in the bundle's order, all in one series.

    Raises
    ------
    UsageError
        The slide is not DICOM.
    """
    import highdicom as hd
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes

    source = find_source(result)
    place = geometry(result, source)
    folder = directory / "dicom"
    folder.mkdir(exist_ok=True)
    written = []
    for index, name in enumerate(result.pathway_names):
        scores = result.pathways[:, index]
        cells = value_map(result, scores)
        low, high = float(scores.min()), float(scores.max())
        bottom, top = colour_range(scores)
        mapping = RealWorldValueMapping(
            lut_label=f"{index + 1}"[:16],
            lut_explanation=name[:64],
            unit=codes.UCUM.NoUnits,
            value_range=(low, high),
            slope=1.0,
            intercept=0.0,
            quantity_definition=code(name, display_name(name)),
        )
        image = ParametricMap(
            [source],
            pixel_array=np.where(np.isnan(cells), np.float32(PADDING), cells)[None],
            series_instance_uid=uid(result, "pmap"),
            series_number=FIRST_SERIES_NUMBER,
            sop_instance_uid=uid(result, "pmap", name),
            instance_number=index + 1,
            **equipment(result),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[
                hd.VOILUTTransformation(window_center=(bottom + top) / 2, window_width=top - bottom)
            ],
            pixel_measures=place.pixel_measures,
            plane_orientation=place.orientation,
            plane_positions=[place.position],
            content_label="PATHWAY",
            content_description=display_name(name)[:64],
            content_qualification="RESEARCH",
            tile_pixel_array=True,
            tile_size=cells.shape,
        )
        # A range of one value: dciodvfy takes the limit for required.
        image.FloatPixelPaddingValue = image.FloatPixelPaddingRangeLimit = PADDING
        image.SeriesDescription = "Pathway maps, research use only"
        make_repeatable(image, result)
        path = folder / f"map-{index + 1:03d}.dcm"
        image.save_as(path, enforce_file_format=True)
        written.append(path)
    return written
