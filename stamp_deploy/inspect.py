"""What a slide is and how it would be read, for a person or as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import MppError, StampError
from .grid import make_grid, select_tiles
from .slide import open_slide
from .tissue import TissueRule, find_tissue


@dataclass(frozen=True)
class Inspection:
    """The report of `stamp-deploy inspect`: facts by section, as JSON values."""

    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return self.facts

    def to_text(self) -> str:
        """The report as aligned lines."""
        lines: list[str] = []
        for name, value in self.facts.items():
            rows = value if isinstance(value, list) else [value]
            for i, row in enumerate(rows):
                lines.append(f"{name if i == 0 else '':<12}{row}")
        return "\n".join(lines)


def describe(path: Path, *, mpp: float | None, target_mpp: float, tile_px: int) -> Inspection:
    """Open a slide and say what was found.

    A slide without a believable mpp is still described; what depends on it is left out and the flag to
    add is named.

    Raises
    ------
    SlideError
        The slide cannot be opened.
    """
    problem = ""
    try:
        slide = open_slide(path, mpp=mpp)
    except MppError as error:
        problem, slide = str(error), open_slide(path, mpp=target_mpp)
    with slide:
        facts: dict[str, Any] = {
            "slide": path.name,
            "format": slide.vendor,
            "size": f"{slide.width} x {slide.height} px, {slide.size_bytes / 1e6:.1f} MB",
            "levels": [
                f"{lv.index}: {lv.width} x {lv.height}, downsample {lv.downsample_x:.6g} x {lv.downsample_y:.6g}"
                for lv in slide.levels
            ],
            "route": f"{slide.route.name}: {slide.route.reason}",
        }
        if problem:
            facts["mpp"] = problem
            return Inspection(facts)
        found = slide.mpp
        facts["mpp"] = f"{found.mpp_x:g} x {found.mpp_y:g} um/px, from {found.source}"
        facts["evidence"] = list(found.evidence)
        try:
            grid = make_grid(slide, target_mpp=target_mpp, tile_px=tile_px)
            rule = TissueRule()
            tissue = find_tissue(slide, rule)
            tiles = select_tiles(grid, tissue, rule.min_fraction)
            facts["reading"] = _plan(slide, tiles)
            facts["tissue"] = f"{tissue.fraction:.1%} of the slide (saturation above {tissue.threshold:.3f})"
            facts["tiles"] = (
                f"{len(tiles)} of {tiles.total} hold tissue ({grid.columns} columns x {grid.rows} rows of "
                f"{tile_px} px at {target_mpp:g} um/px)"
            )
        except StampError as error:
            facts["reading"] = str(error)
    return Inspection(facts)


def _plan(slide: Any, tiles: Any) -> str:
    from .tiles import open_tiles

    with open_tiles(slide, tiles, batch=1, threads=1) as source:
        return source.plan.why
