"""What a slide is and how it would be read, for a person or as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import check_stated_mpp
from ..errors import COPY_AGAIN, MppError, StampError
from ..grid import TileSet, make_grid, select_tiles
from ..slide import Slide, open_slide
from ..system.names import shown_name
from ..tiles import open_tiles
from ..tissue import TissueRule, find_tissue

TRIED_TILES = 16
_WIDTH = 10


@dataclass(frozen=True)
class Inspection:
    """The report of `stamp-deploy inspect`.

    Attributes
    ----------
    facts : dict
        JSON values: slide (the file name), format, size_bytes, width, height, levels, route (name: of the index's
        provider or of the reader; reason: also why not the compiled tiler; compiled), mpp (null where it is
        unknown), evidence, problem (what would keep the slide from being scored, or null), and, where mpp is known,
        model, reading, tissue, tiles (of which some are decoded: tried, readable), notes.
    """

    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return self.facts

    def to_text(self) -> str:
        """The report as aligned lines."""
        facts = self.facts
        mpp = facts["mpp"]
        rows: list[tuple[str, str]] = [
            ("slide", f"{facts['slide']} ({human_size(facts['size_bytes'])})"),
            ("format", facts["format"]),
            ("size", f"{facts['width']} x {facts['height']} px" + (_millimetres(facts) if mpp else "")),
            *_listed(
                "levels",
                [
                    f"{lv['index']}: {lv['width']} x {lv['height']}"
                    + (f", 1/{lv['downsample_x']:.4g}" if lv["index"] else "")
                    for lv in facts["levels"]
                ],
            ),
            ("mpp", f"{mpp['x']:g} x {mpp['y']:g} um/px, by {mpp['source']}" if mpp else "unknown"),
            *_listed("evidence", facts["evidence"]),
            *_listed("route", [f"{facts['route']['name']}: {facts['route']['reason']}", _speed(facts["route"])]),
        ]
        if "reading" in facts:
            model, tissue, tiles = facts["model"], facts["tissue"], facts["tiles"]
            rows += [
                ("reading", facts["reading"]["why"]),
                ("tissue", f"{tissue['fraction']:.1%} of the slide, by saturation above {tissue['threshold']:.3f}"),
                (
                    "tiles",
                    f"{tiles['tissue']} of {tiles['grid']} hold tissue: {tiles['columns']} columns x {tiles['rows']} "
                    f"rows of {model['tile_px']} px at {model['mpp']:g} um/px; {tiles['readable']} of {tiles['tried']} "
                    "that were tried can be read",
                ),
                *_listed("beware", facts["notes"]),
            ]
        if facts["problem"]:
            rows.append(("problem", facts["problem"]))
        return "\n".join(f"{name:<{_WIDTH}}{text}" for name, text in rows)


def describe(path: Path, *, mpp: float | None, target_mpp: float, tile_px: int) -> Inspection:
    """Open a slide and say what was found.

    A slide without a believable mpp is still described; what depends on it is left out and the flag to add is named.

    Parameters
    ----------
    path : Path
    mpp : float, optional
        The user's --mpp.
    target_mpp : float
        Microns per pixel that the model wants.
    tile_px : int
        Side of the model's tiles, pixels.

    Raises
    ------
    SlideError
        The slide cannot be opened.
    UsageError
        `mpp` is no slide's resolution.
    """
    if mpp is not None:
        check_stated_mpp(mpp)
    try:
        slide = open_slide(path, mpp=mpp)
    except MppError as error:
        with open_slide(path, mpp=target_mpp) as slide:
            facts = _facts(slide)
            facts["evidence"] = list(slide.mpp.evidence[1:])
            return Inspection({**facts, "mpp": None, "problem": f"no microns per pixel: {error.remedy}"})
    with slide:
        facts = _facts(slide)
        try:
            facts.update(_reading(slide, target_mpp, tile_px))
        except StampError as error:
            facts["problem"] = f"{error.cause}: {error.remedy}" if error.remedy else error.cause
    return Inspection(facts)


def _facts(slide: Slide) -> dict[str, Any]:
    found = slide.mpp
    return {
        "slide": shown_name(slide.path),
        "format": slide.vendor,
        "size_bytes": slide.size_bytes,
        "width": slide.width,
        "height": slide.height,
        "levels": [asdict(level) for level in slide.levels],
        "route": {**asdict(slide.route), "by_storage": slide.route.by_storage, "compiled": slide.route.compiled},
        "mpp": {"x": found.mpp_x, "y": found.mpp_y, "source": found.source},
        "evidence": [*found.evidence, *(f"beware: {note}" for note in (found.conflict, *slide.notes) if note)],
        "problem": None,
    }


def _reading(slide: Slide, target_mpp: float, tile_px: int) -> dict[str, Any]:
    grid = make_grid(slide, target_mpp=target_mpp, tile_px=tile_px)
    rule = TissueRule()
    tissue = find_tissue(slide, rule)
    tiles = select_tiles(grid, tissue, rule.min_fraction)
    tried = _some_of(tiles)
    with open_tiles(slide, tried, batch=TRIED_TILES, threads=1) as source:
        reading = source.plan.to_dict()
        for _ in source:
            pass
        readable, failure = source.ok, source.failure
    problem = None
    if not len(tiles):
        problem = "no tile holds enough tissue to be scored"
    elif readable < len(tried):
        why = f": {failure.cause}; {failure.remedy}" if failure else f": {COPY_AGAIN}"
        problem = f"{len(tried) - readable} of {len(tried)} tissue tiles that were tried cannot be read{why}"
    return {
        "problem": problem,
        "model": {"mpp": target_mpp, "tile_px": tile_px},
        "reading": reading,
        "tissue": {"fraction": tissue.fraction, "threshold": tissue.threshold},
        "tiles": {
            "grid": tiles.total,
            "tissue": len(tiles),
            "columns": grid.columns,
            "rows": grid.rows,
            "tried": len(tried),
            "readable": readable,
        },
        "notes": list(tissue.notes),
    }


def _some_of(tiles: TileSet) -> TileSet:
    """Up to TRIED_TILES of the tiles, spread over all of them."""
    pick = np.unique(np.linspace(0, max(0, len(tiles) - 1), TRIED_TILES).astype(np.int64))[: len(tiles)]
    return tiles.part(pick)


def human_size(size_bytes: int) -> str:
    """ "940 bytes", "7.7 kB", "1.9 GB"."""
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    value = size_bytes / 1000
    for unit in ("kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _millimetres(facts: dict[str, Any]) -> str:
    mpp = facts["mpp"]
    return f", {facts['width'] * mpp['x'] / 1000:.2f} x {facts['height'] * mpp['y'] / 1000:.2f} mm"


def _speed(route: dict[str, Any]) -> str:
    if route["compiled"]:
        return "fast: each storage tile is decoded once, at the scale that the model needs"
    if route["by_storage"]:
        return "between: each storage tile is decoded once, by a slower decoder than JPEG's"
    return f"slow: {route['name']} reads a region for each tile, because of the reason above"


def _listed(name: str, lines: list[str]) -> list[tuple[str, str]]:
    return [(name if i == 0 else "", line) for i, line in enumerate(lines)]
