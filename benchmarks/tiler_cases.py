"""Slides that the tiler is measured on, and how they are read."""

from __future__ import annotations

import os
import platform
import statistics
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rivals import Read

from stamp_deploy import _tiler
from stamp_deploy.checks import acceptance
from stamp_deploy.grid import TileSet, make_grid, select_tiles
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import TileStatus, open_tiles
from stamp_deploy.tissue import TissueRule, find_tissue

TILE, TARGET = 224, 0.5
CODINGS = {"as coded (RGB 4:4:4)": None, "4:2:2": "422", "4:2:0": "420"}


@dataclass
class Case:
    """One slide read at one resolution: rates by reader, round by round, tiles/s."""

    slide: Path
    mpp: float
    tiles: TileSet
    runs: list[NDArray[np.int64]]  # stretches of neighbouring tiles for the slower readers
    rates: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, name: str, other: str) -> tuple[float, float]:
        """Median and spread of name's rate over other's, within rounds."""
        return middle([a / b for a, b in zip(self.rates[name], self.rates[other], strict=True)])


def middle(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), max(values) - min(values)


def case(path: Path, mpp: float, limit: int | None, sample: int, *, all_tiles: bool = False) -> Case:
    """The tissue tiles of a slide, or all (the first `limit`), and `sample` of them in four stretches."""
    with open_slide(path, mpp=mpp) as slide:
        mask = None if all_tiles else find_tissue(slide, TissueRule())
        tiles = select_tiles(make_grid(slide, target_mpp=TARGET, tile_px=TILE), mask, 0.0 if all_tiles else 0.5)
    tiles = tiles.part(slice(limit))
    starts = np.linspace(0, max(0, len(tiles) - sample // 4), 4).astype(int)
    return Case(path, mpp, tiles, [tiles.coords[s : s + sample // 4] for s in starts])


def read_ours(one: Case, *, threads: int = 1, mpp: float | None = None, tiles: TileSet | None = None) -> float:
    """Tiles/s by the slide's storage tiles, from opening the tiler to its last batch."""
    tiles = one.tiles if tiles is None else tiles
    with open_slide(one.slide, mpp=mpp or one.mpp) as slide:
        if not slide.route.by_storage:
            raise RuntimeError(f"{one.slide.name} is not read by its storage tiles: {slide.route.reason}")
        clock = time.perf_counter()
        with open_tiles(slide, tiles, batch=64, threads=threads) as source:
            for batch in source:
                if (batch.status != TileStatus.OK).any():
                    raise RuntimeError("a tile of a sound slide is unreadable")
        return len(tiles) / (time.perf_counter() - clock)


def read_rival(one: Case, read: Read) -> float:
    span = round(one.tiles.grid.span_x)
    clock = time.perf_counter()
    count = sum(read(one.slide, corners, span, TILE) for corners in one.runs)
    return float(count / (time.perf_counter() - clock))


def describe_machine() -> dict[str, Any]:
    facts = acceptance.machine()
    return {
        "cpu": facts["processor"], "cores": facts["cores"], "load_at_start": os.getloadavg()[0],
        "python": platform.python_version(), "core": _tiler.build_info(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
