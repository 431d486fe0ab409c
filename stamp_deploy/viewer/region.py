"""The figures of an area that is drawn in the viewer: those that ``--roi-use split`` would give for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..annotations import rasterise
from ..errors import UsageError
from ..result import Result, SlideFacts
from ..summarise import summarise_area
from ..tissue import TissueMask, TissueRule, mask_shape
from ..validation import Scale
from ..writers.picture import result_styles

if TYPE_CHECKING:
    from shapely import Geometry


def area_of(polygons: Sequence[Sequence[Sequence[Sequence[float]]]]) -> Geometry:
    """A valid geometry out of polygons, each an outline followed by its holes, level-0 pixels.

    Raises
    ------
    UsageError
        They have no area.
    """
    import shapely

    try:
        drawn = shapely.union_all([shapely.make_valid(shapely.Polygon(outline, holes)) for outline, *holes in polygons])
    except (ValueError, TypeError, shapely.GEOSException) as error:
        raise UsageError("this is no polygon", remedy="draw three corners or more") from error
    parts = [part for part in shapely.get_parts(drawn) if part.geom_type in ("Polygon", "MultiPolygon")]
    area = shapely.union_all(parts)
    if not area.area > 0:
        raise UsageError("the polygon has no area", remedy="draw three corners or more that do not lie on one line")
    return area


def region_facts(result: Result, area: Geometry) -> dict[str, Any]:
    """The figures of an area, as JSON values.

    Parameters
    ----------
    result : Result
    area : shapely geometry
        Valid, level-0 pixels.
    """
    import shapely

    slide, grid = result.slide, result.grid
    area = shapely.intersection(area, shapely.box(0, 0, slide.width, slide.height))
    rule = _rule(result)
    shape = mask_shape(_Extent(slide), rule) if result.tissue_mask is None else result.tissue_mask.shape
    base = np.ones(shape, bool) if result.tissue_mask is None else result.tissue_mask
    scale_x, scale_y = slide.width / shape[1], slide.height / shape[0]
    mask = base & rasterise(area, (shape[0], shape[1]), scale_x, scale_y)
    inside = TissueMask(mask, scale_x, scale_y, rule, None, float(mask.mean()))
    share = inside.tile_fractions(result.coords, grid.span_x, grid.span_y)
    summary = summarise_area(result, "drawn", share)
    found = {item.name: item for item in summary.pathways}
    whole = {item.name: item for item in result.summaries[0].pathways} if result.summaries else {}
    scales = dict(zip(result.pathway_names, result.summary_scales, strict=True))
    rows = []
    for style in result_styles(result):
        item = found.get(style.name)
        if item is None:
            continue
        beside = whole.get(style.name)
        rows.append(
            {
                "name": style.name,
                "label": style.label,
                "pale": style.pale,
                "mean": item.mean,
                "interval": item.mean_interval,
                "interval_z": _in_z(item.mean_interval, scales[style.name]),
                "mean_z": item.mean_z,
                "sd": item.sd,
                "share_above": item.share_above,
                "slide_mean": None if beside is None else beside.mean,
                "slide_mean_z": None if beside is None else beside.mean_z,
            }
        )
    return {
        "area_mm2": float(area.area) * slide.mpp_x * slide.mpp_y / 1e6,
        "tissue_mm2": summary.tissue_mm2,
        "tiles": summary.tiles,
        "left_out": summary.tiles_left_out,
        "unit": result.summary_unit,
        "high_z": summary.high_z,
        "no_interval_because": next((why for item in summary.pathways if (why := item.no_interval_because)), ""),
        "pathways": rows,
    }


def _in_z(interval: tuple[float, float] | None, scale: Scale | None) -> list[float] | None:
    """The limits on the scale that all slides share; None where either is not known."""
    return None if interval is None or scale is None else [(end - scale.centre) / scale.spread for end in interval]


@dataclass(frozen=True)
class _Extent:
    """The size of a slide that is not open."""

    facts: SlideFacts

    @property
    def width(self) -> int:
        return self.facts.width

    @property
    def height(self) -> int:
        return self.facts.height

    @property
    def mpp_xy(self) -> tuple[float, float]:
        return self.facts.mpp_x, self.facts.mpp_y


def _rule(result: Result) -> TissueRule:
    """The rule by which the slide's tissue was found; the default one where the result does not say."""
    said = result.tissue.get("rule")
    return TissueRule.from_dict(said) if isinstance(said, dict) else TissueRule()
