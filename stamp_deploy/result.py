"""The Result: everything known of one slide after inference, in one frozen record.

Writers read it and nothing else. Arrays hold the readable (OK) tiles only, in row-major order of
the grid; coordinates are level-0 pixels of a tile's top-left corner. docs/result.md describes
result.json field by field.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine.interface import EngineInfo
from .gallery import Gallery
from .grid import Grid
from .heads import HeadCall
from .provenance import RESEARCH_USE
from .result_parts import BundleFacts, SlideFacts, TileCounts
from .summaries import (
    PERCENTILES,
    RegionSummary,
    TileScores,
    usable_weights,
    weighted_mean,
    weighted_percentiles,
    weighted_sd,
)
from .system.names import shown_name
from .trust import SlideTrust
from .validation import GLOBAL_UNIT, Scale, Validation, facts_of, usable

__all__ = ["BundleFacts", "Result", "SlideFacts", "TileCounts"]
SCHEMA = "stamp-deploy/result"
SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""In version 1 `pathways.summary` was not weighted by tissue, and there were no `summaries`."""
UNSTATED_UNIT = "predicted score"
"""Unit of the scores of a bundle that states none."""


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """One slide's result.

    Attributes
    ----------
    coords : int64 [N, 2]
        (x, y) of each tile's top-left corner, level-0 pixels.
    embedding : float32 [N, D]
        Tile embeddings.
    pathways : float32 [N, P]
        Pathway scores, in the order of `pathway_names`; the unit is the bundle's (`score_unit`).
    tissue_fraction : float32 [N]
        Share of the tile that is tissue, 0 to 1.
    pathways_global : float32 [N, P] or None
        Scores of the read-out that is comparable across slides; None where the bundle has none.
    validation : Validation or None
        What the bundle says about its scores.
    trust : SlideTrust or None
        Whether the slide looks like what the model knows; its arrays are per tile, in the order of `coords`.
    tissue_mask : bool [h, w] or None
        Tissue over the whole level 0, found or given; None where every tile was scored.
    summaries : tuple of RegionSummary
        The slide in figures, whole first, then by class of annotation; empty in results of schema version 1.
    gallery : Gallery or None
        Pictures of the highest and lowest tiles; None where they were not taken.
    thumbnail : uint8 [h, w, 3]
        RGB overview of the whole level 0.
    timing : dict of float
        Seconds by stage; `limiting` names the stage that set the pace.
    read_plan : dict
        Route, level, DCT scale and residual that the tiler used, and why.

    Raises
    ------
    ValueError
        The arrays disagree in length, or hold other than finite numbers.
    """

    slide: SlideFacts
    grid: Grid
    bundle: BundleFacts
    engine: EngineInfo
    tiles: TileCounts
    coords: NDArray[np.int64]
    embedding: NDArray[np.float32]
    pathways: NDArray[np.float32]
    tissue_fraction: NDArray[np.float32]
    pathway_names: tuple[str, ...]
    thumbnail: NDArray[np.uint8]
    heads: tuple[HeadCall, ...] = ()
    read_plan: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    limiting: str = ""
    software: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    config_sha256: str = ""
    tissue: dict[str, Any] = field(default_factory=dict)
    started_utc: str = ""
    warnings: tuple[str, ...] = ()
    research_use: str = RESEARCH_USE
    score_unit: str = UNSTATED_UNIT
    source_path: Path | None = None
    """Where the slide lay: DICOM writers read its headers again. Never written to any output."""
    validation: Validation | None = None
    trust: SlideTrust | None = None
    pathways_global: NDArray[np.float32] | None = None
    summaries: tuple[RegionSummary, ...] = ()
    gallery: Gallery | None = None
    tissue_mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        n, p = len(self.coords), len(self.pathway_names)
        shapes = {
            "coords": (self.coords.shape, (n, 2)),
            "embedding": (self.embedding.shape[:1], (n,)),
            "pathways": (self.pathways.shape, (n, p)),
            "tissue_fraction": (self.tissue_fraction.shape, (n,)),
        }
        if self.pathways_global is not None:
            shapes["pathways_global"] = (self.pathways_global.shape, (n, p))
        if self.trust is not None:
            shapes["trust.tile_distance"] = (self.trust.tile_distance.shape, (n,))
            shapes["trust.tile_flags"] = (self.trust.tile_flags.shape, (n,))
            shapes["trust.tile_percentile"] = (self.trust.tile_percentile.shape, (n,))
        if self.gallery is not None:
            shapes["gallery.highest"] = (self.gallery.highest.shape[:1], (p,))
            shapes["gallery.lowest"] = (self.gallery.lowest.shape[:1], (p,))
        wrong = [f"{name} {got}, expected {want}" for name, (got, want) in shapes.items() if got != want]
        if wrong:
            raise ValueError("result arrays disagree: " + "; ".join(wrong))
        if self.tiles.ok != n:
            raise ValueError(f"{n} tiles have scores but {self.tiles.ok} were counted as readable")
        if self.gallery is not None and (self.gallery.tiles >= n).any():
            raise ValueError("the gallery shows tiles that the result does not have")
        scores = (self.embedding, self.pathways, *(() if self.pathways_global is None else (self.pathways_global,)))
        if not all(np.isfinite(values).all() for values in scores):
            raise ValueError("embeddings or pathway scores are not finite")

    def __repr__(self) -> str:
        grid, verdict = self.grid, "not judged" if self.trust is None else self.trust.verdict
        return (
            f"<{type(self).__name__} of {self.slide.name}: {len(self.coords):,} tiles of {grid.tile_px} px at "
            f"{grid.target_mpp:g} um/px, {len(self.pathway_names)} pathways, {len(self.heads)} calls, {verdict}>"
        )

    @property
    def tile_cells(self) -> NDArray[np.int64]:
        """(column, row) of each tile in the grid: int64 [N, 2]."""
        step = np.array([self.grid.step_x, self.grid.step_y])
        cells: NDArray[np.int64] = np.rint(self.coords / step).astype(np.int64)
        return cells

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which tiles summaries count: bool [N], all but those that `trust` leaves out."""
        return np.ones(len(self.coords), bool) if self.trust is None else ~self.trust.left_out

    @property
    def summarised(self) -> str:
        """The read-out that summaries rest on: "pathways_global" where there is one, else "pathways"."""
        return "pathways" if self.pathways_global is None else "pathways_global"

    @property
    def summary_unit(self) -> str:
        """Unit of `summary` and `summaries`."""
        return self.score_unit if self.pathways_global is None else GLOBAL_UNIT

    @property
    def summary_scales(self) -> tuple[Scale | None, ...]:
        """Puts each pathway's `summarised` read-out on the scale that all slides share; None where nothing does."""
        facts = facts_of(self.validation, self.pathway_names)
        within = self.pathways_global is None
        return tuple(usable(item.scale if within else item.scale_global) for item in facts)

    def tile_scores(self) -> TileScores:
        """The scores that summaries rest on, of all readable tiles, with the tissue under each."""
        values = self.pathways if self.pathways_global is None else self.pathways_global
        return TileScores(
            self.pathway_names,
            values.astype(np.float64),
            self.tissue_fraction.astype(np.float64),
            self.tile_cells,
            self.grid,
            self.summary_scales,
        )

    def summary(self) -> dict[str, dict[str, float]]:
        """Per pathway of the `summarised` read-out: mean, sd (n - 1), min, p05, p25, p50, p75, p95, max.

        Over the `counted` tiles, each weighted by its tissue fraction. Empty when no tile counts; sd is 0 for a single
        tile.
        """
        tiles = self.tile_scores().of(self.counted)
        if len(tiles) == 0:
            return {}
        scores, weights = tiles.values, usable_weights(tiles.weights)
        columns = {"mean": weighted_mean(scores, weights), "sd": weighted_sd(scores, weights)}
        columns["min"] = scores.min(axis=0)
        for percent, row in zip(PERCENTILES, weighted_percentiles(scores, weights), strict=True):
            columns[f"p{percent:02d}"] = row
        columns["max"] = scores.max(axis=0)
        return {
            name: {key: float(values[i]) for key, values in columns.items()}
            for i, name in enumerate(self.pathway_names)
        }

    def to_json_dict(self) -> dict[str, Any]:
        """The record without its per-tile arrays, as JSON values (schema in docs/result.md)."""
        grid = self.grid
        value = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "research_use": self.research_use,
            "started_utc": self.started_utc,
            "slide": asdict(self.slide),
            "grid": {
                "target_mpp": grid.target_mpp,
                "tile_px": grid.tile_px,
                "overlap_px": grid.overlap_px,
                "columns": grid.columns,
                "rows": grid.rows,
                "span_x_level0_px": grid.span_x,
                "span_y_level0_px": grid.span_y,
                "step_x_level0_px": grid.step_x,
                "step_y_level0_px": grid.step_y,
            },
            "tissue": self.tissue,
            "read_plan": self.read_plan,
            "tiles": self.tiles.to_dict(),
            "pathways": {
                "unit": self.score_unit,
                "names": list(self.pathway_names),
                "summary": self.summary(),
                "summarised": self.summarised,
                "summary_unit": self.summary_unit,
                "global_scores": self.pathways_global is not None,
            },
            "summaries": [region.to_dict() for region in self.summaries],
            "validation": None if self.validation is None else self.validation.to_dict(),
            "trust": None if self.trust is None else self.trust.to_dict(),
            "heads": [head.to_dict() for head in self.heads],
            "bundle": asdict(self.bundle),
            "engine": asdict(self.engine),
            "timing_seconds": {key: round(float(seconds), 4) for key, seconds in self.timing.items()},
            "limiting_stage": self.limiting,
            "config": self.config,
            "config_sha256": self.config_sha256,
            "software": self.software,
            "warnings": list(self.warnings),
        }
        plain: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False, default=_plain))
        return plain


def _plain(value: object) -> object:
    """numpy scalars and arrays, enumerations and paths as JSON values; a path becomes its name."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return shown_name(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
