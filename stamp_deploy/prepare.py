"""A slide that is ready to be scored: opened, its tissue found, its grid laid, its tiles being decoded."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .bundle.reference import NO_REFERENCE
from .config import InferOptions
from .errors import StampError, UsageError
from .gallery import Gallery
from .grid import TileSet, make_grid
from .slide import Slide, open_slide
from .system import isolation, log
from .tiles import TileSource, open_tiles
from .tissue import TissueRule
from .where import Where, find_where

THUMBNAIL_PX = 2048
"""Longest side of the picture under the maps; a pyramid level of at least half of it is taken as it is."""
AHEAD_TILES = 256
"""Tiles that are decoded ahead of the engine: enough for it to work on while the cores open the next slide."""


@dataclass
class Prepared:
    """A slide that is open, planned and being decoded; `close` releases all of it."""

    slide: Slide
    bundle: Bundle
    options: InferOptions
    where: Where
    source: TileSource
    thumbnail: NDArray[np.uint8]
    started: datetime
    seconds: dict[str, float] = field(default_factory=dict)
    gallery: Gallery | None = None

    @property
    def tiles(self) -> TileSet:
        """The tiles that are scored."""
        return self.where.tiles

    def close(self) -> None:
        self.source.close()
        if not self.source.hung:
            self.slide.close()


def prepare(path: Path, bundle: Bundle, options: InferOptions) -> Prepared:
    """Open a slide, find its tissue, lay the grid and start decoding.

    Raises
    ------
    SlideError
        The slide cannot be read, states no mpp, is smaller than a tile, or shows no tissue.
    UsageError
        A verdict is demanded (`InferOptions.strict`) and the bundle cannot give one.
    """
    if options.strict and bundle.trust_file is None:
        raise UsageError(
            f"--strict cannot be kept: {bundle.name} {NO_REFERENCE}",
            path=bundle.path,
            remedy="export the bundle again from its run and cohort, or leave --strict out",
        )
    started, clock = datetime.now(UTC), time.perf_counter()
    limit_s = math.inf if options.time_limit_s is None else options.time_limit_s
    deadline = time.monotonic() + limit_s
    isolation.note(deadline=deadline if options.time_limit_s else None)
    slide = open_slide(path, mpp=options.mpp, accept=bundle.trained_on, icc=options.icc or bundle.icc)
    try:
        slide.deadline = deadline
        grid = make_grid(slide, target_mpp=bundle.mpp, tile_px=bundle.tile_px)
        rule = TissueRule.from_dict(bundle.tissue)
        thumbnail = slide.thumbnail(_picture_px(slide))
        where = find_where(slide, grid, rule, options)
        opened = time.perf_counter()
        source = open_tiles(
            slide,
            where.tiles,
            batch=options.batch,
            threads=options.threads,
            exact=options.exact,
            time_limit_s=None if options.time_limit_s is None else max(0.0, deadline - time.monotonic()),
            slots=max(3, AHEAD_TILES // options.batch),
        )
    except StampError as error:
        slide.close()
        raise error.about(path) from error.__cause__
    except BaseException:
        slide.close()
        raise
    # A slide of many GB takes a while to hash: beside the engine, not after it. An error is met again in `conclude`.
    threading.Thread(target=_hash_quietly, args=(slide,), name="hash", daemon=True).start()
    isolation.note(stage="reading the slide", deadline=None)
    log.event("prepared", slide=log.slide_token(path), route=slide.route.name, tiles=len(where.tiles))
    return Prepared(slide, bundle, options, where, source, thumbnail, started, {"open_and_tissue": opened - clock})


def _picture_px(slide: Slide) -> int:
    """Decoding a level four times finer, to shrink it at once, would take longer than finding the tissue."""
    sides = (max(level.width, level.height) for level in slide.levels)
    return max((side for side in sides if THUMBNAIL_PX // 2 <= side <= THUMBNAIL_PX), default=THUMBNAIL_PX)


def _hash_quietly(slide: Slide) -> None:
    with contextlib.suppress(OSError, StampError):
        slide.sha256()
