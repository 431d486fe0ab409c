"""dicom/map-001.dcm ...: one DICOM Parametric Map per pathway, one pixel per grid cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..maps import value_map
from ..pathway_names import display_name
from ..result import Result
from .dicom_object import FIRST_SERIES_NUMBER, code, equipment, save, uid
from .dicom_source import check, geometry, sources_of
from .picture import result_styles

if TYPE_CHECKING:
    from pydicom import Dataset

NAME = "dicom-pmap"
NEEDS = ("highdicom", "pydicom")
PADDING = float(np.finfo(np.float32).min)
"""Stands where there is no tile; declared as Float Pixel Padding Value."""
MAX_WINDOW = 2.0**31 - 1
"""Widest window that dciodvfy reads: it takes the width for a whole number of 32 bits."""

__all__ = ["NAME", "NEEDS", "check", "write"]


def write(result: Result, directory: Path) -> list[Path]:
    """Write one Parametric Map per pathway, numbered in the bundle's order, all in one series.

    Raises
    ------
    UsageError
        The slide is not DICOM.
    """
    with sources_of(result) as sources:
        return _write(result, sources, directory)


def _write(result: Result, sources: Sequence[Dataset], directory: Path) -> list[Path]:
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes

    source = sources[0]
    place = geometry(result, source)
    written = []
    styles = {style.index: style for style in result_styles(result)}
    for index, name in enumerate(result.pathway_names):
        scores = result.pathways[:, index]
        cells = value_map(result, scores)
        low, high = float(scores.min()), float(scores.max())
        bottom, top = styles[index].score_range
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
            series_instance_uid=uid(result, source, "pmap"),
            series_number=FIRST_SERIES_NUMBER,
            sop_instance_uid=uid(result, source, "pmap", name),
            instance_number=index + 1,
            **equipment(result),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=_window(bottom, top),
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
        path = directory / "dicom" / f"map-{index + 1:03d}.dcm"
        save(image, sources, path)
        written.append(path)
    return written


def _window(bottom: float, top: float) -> Any:
    """What a viewer shows between black and white at first."""
    import highdicom as hd

    # LINEAR is defined for whole numbers: it asks for a width of 1 at least, and shifts the window by half
    exact = hd.VOILUTFunctionValues.LINEAR_EXACT
    return [hd.VOILUTTransformation((bottom + top) / 2, min(top - bottom, MAX_WINDOW), voi_lut_function=exact)]
