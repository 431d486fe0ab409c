"""One slide, from file to result. A newcomer starts here.

    slide -> tissue -> grid -> tiles -> engine -> maps / heads -> result -> writers

`infer_slide` does it all. The steps it is made of can be called apart, so that a batch decodes the next slide
(`prepare`) while the engine works on this one (`score`) and the last one is on its way to the disk (`conclude`,
`write`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import log
from .assemble import assemble
from .atomic import check_output, staged_directory
from .bundle import Bundle
from .config import InferOptions
from .engine import Engine, EngineInfo, load_engine
from .errors import SlideError, StampError
from .grid import TileSet, make_grid, select_tiles
from .heads import call_heads
from .result import Result
from .slide import Slide, open_slide
from .tiles import TileSource, TileStatus, open_tiles
from .tissue import TissueMask, TissueRule, find_tissue
from .writers import check_names, write_all

THUMBNAIL_PX = 2048
"""Longest side of the picture under the maps; a pyramid level of at least half of it is taken as it is."""
AHEAD_TILES = 256
"""Tiles that are decoded ahead of the engine: enough for it to work on while the cores open the next slide."""
Progress = Callable[[int, int], None]
"""Called with (tiles done, tiles in all) after every batch."""


@dataclass
class Prepared:
    """A slide that is open, planned and being decoded; `close` releases all of it."""

    slide: Slide
    bundle: Bundle
    options: InferOptions
    tissue: TissueMask | None
    tiles: TileSet
    source: TileSource
    thumbnail: NDArray[np.uint8]
    started: datetime
    seconds: dict[str, float] = field(default_factory=dict)

    def close(self) -> None:
        self.source.close()
        self.slide.close()


@dataclass(frozen=True, eq=False)
class Scores:
    """What the engine said of a slide's readable tiles, in the order in which they came.

    Attributes
    ----------
    engine : EngineInfo
        As it was when the last tile came back: its batch may have been halved on the way.
    index : int64 [N]
        Positions in the tile set.
    embedding, pathways : float32 [N, D], [N, P]
    """

    engine: EngineInfo
    index: NDArray[np.int64]
    embedding: NDArray[np.float32]
    pathways: NDArray[np.float32]


def infer_slide(
    slide: Path,
    bundle: Bundle,
    out: Path,
    options: InferOptions,
    *,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Result:
    """Score one slide and write its result folder, whole or not at all.

    Parameters
    ----------
    slide : Path
        The whole-slide image.
    bundle : Bundle
        A loaded, verified bundle.
    out : Path
        The result folder; it appears when everything in it is on the disk.
    options : InferOptions
        How to do it.
    engine : Engine, optional
        A loaded engine, kept open; without it one is loaded and closed again.
    progress : callable, optional
        Called with (tiles done, tiles in all).

    Raises
    ------
    StampError
        With the cause, the remedy and the exit code; no output is left behind.
    """
    check_output(out, overwrite=options.overwrite)
    check_names(options.writers, slide if slide.is_file() else None)
    prepared = prepare(slide, bundle, options)
    own_engine: Engine | None = None
    try:
        if engine is None:
            engine = own_engine = load_engine(
                bundle, options.engine, batch=options.batch, threads=options.threads, precision=options.precision
            )
        scores = score(prepared, engine, progress=progress)
        result = conclude(prepared, scores)
    finally:
        prepared.close()
        if own_engine is not None:
            own_engine.close()
    write(result, out, options)
    return result


def prepare(path: Path, bundle: Bundle, options: InferOptions) -> Prepared:
    """Open a slide, find its tissue, lay the grid and start decoding.

    Raises
    ------
    SlideError
        The slide cannot be read, states no mpp, is smaller than a tile, or shows no tissue.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    slide = open_slide(path, mpp=options.mpp)
    try:
        grid = make_grid(slide, target_mpp=bundle.mpp, tile_px=bundle.tile_px)
        rule = TissueRule.from_dict(bundle.tissue)
        thumbnail = slide.thumbnail(_picture_px(slide))
        tissue = None if options.all_tiles else find_tissue(slide, rule)
        tiles = select_tiles(grid, tissue, rule.min_fraction)
        if len(tiles.coords) == 0:
            raise SlideError(
                f"no tissue was found in {tiles.total} tiles of {bundle.tile_px} px at {bundle.mpp:g} um/px",
                path=path,
                remedy="look at the slide with `stamp-deploy inspect`; --all-tiles scores every tile",
            )
        opened = time.perf_counter()
        source = open_tiles(
            slide,
            tiles,
            batch=options.batch,
            threads=options.threads,
            exact=options.exact,
            time_limit_s=options.time_limit_s,
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
    log.event("prepared", slide=log.slide_token(path), route=slide.route.name, tiles=len(tiles.coords))
    return Prepared(
        slide, bundle, options, tissue, tiles, source, thumbnail, started, {"open_and_tissue": opened - clock}
    )


def _picture_px(slide: Slide) -> int:
    """Decoding a level four times finer, to shrink it at once, would take longer than finding the tissue."""
    sides = (max(level.width, level.height) for level in slide.levels)
    return max((side for side in sides if THUMBNAIL_PX // 2 <= side <= THUMBNAIL_PX), default=THUMBNAIL_PX)


def _hash_quietly(slide: Slide) -> None:
    with contextlib.suppress(OSError, StampError):
        slide.sha256()


def score(prepared: Prepared, engine: Engine, *, progress: Progress | None = None) -> Scores:
    """Run the engine over the readable tiles; nothing else, so that it is free for the next slide at once.

    Raises
    ------
    SlideError
        More tiles are unreadable than `InferOptions.max_unreadable` allows.
    """
    kept: list[NDArray[np.int64]] = []
    embeddings: list[NDArray[np.float32]] = []
    pathways: list[NDArray[np.float32]] = []
    total = len(prepared.tiles.coords)
    waited = 0.0
    seen = 0

    def readable() -> Iterator[NDArray[np.uint8]]:
        nonlocal waited, seen
        batches = iter(prepared.source)
        while True:
            clock = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - clock
            if batch is None:
                return
            seen += len(batch.index)
            ok = batch.status == TileStatus.OK
            if ok.any():
                kept.append(batch.index[ok])
                yield batch.pixels if ok.all() else batch.pixels[ok]
            if progress is not None:
                progress(seen, total)

    clock = time.perf_counter()
    for output in engine.stream(readable()):
        embeddings.append(output.embedding)
        pathways.append(output.pathways)
    streamed = time.perf_counter() - clock
    _check_budget(prepared, seen)

    prepared.seconds.update(wait_for_tiles=waited, engine=streamed - waited, stream=streamed)
    token = log.slide_token(prepared.slide.path)
    log.event("scored", slide=token, tiles=prepared.source.ok, seconds=round(streamed, 3))
    return Scores(engine.info, np.concatenate(kept), np.concatenate(embeddings), np.concatenate(pathways))


def conclude(prepared: Prepared, scores: Scores) -> Result:
    """The slide-level calls and the record of the run; `prepared` may be closed already.

    Raises
    ------
    SlideError
        A score is not finite.
    BundleError
        A head cannot be run.
    """
    order = np.argsort(scores.index, kind="stable")
    embedding, pathways = scores.embedding[order], scores.pathways[order]
    _check_finite(prepared, embedding, pathways)
    clock = time.perf_counter()
    calls = call_heads(prepared.bundle, embedding, threads=prepared.options.threads)
    prepared.seconds["heads"] = time.perf_counter() - clock
    return assemble(prepared, scores.engine, scores.index[order], embedding, pathways, calls, _warnings(prepared))


def write(result: Result, out: Path, options: InferOptions) -> None:
    """Write the result folder: staged beside `out`, flushed, renamed."""
    with staged_directory(out, overwrite=options.overwrite, hashes=True) as staging:
        write_all(result, staging, options.writers)


def _warnings(prepared: Prepared) -> list[str]:
    """What a reader of the result should know of the slide."""
    conflict = prepared.slide.mpp.conflict
    return [conflict] if conflict else []


def _check_budget(prepared: Prepared, seen: int) -> None:
    source, total = prepared.source, len(prepared.tiles.coords)
    unreadable = total - source.ok
    if seen != total:
        raise SlideError(f"only {seen} of {total} tiles came back from the reader", path=prepared.slide.path)
    if unreadable > prepared.options.max_unreadable * total or source.ok == 0:
        raise SlideError(
            f"{unreadable} of {total} tissue tiles are unreadable, more than the budget of "
            f"{prepared.options.max_unreadable:.2%}",
            path=prepared.slide.path,
            remedy="copy or scan the slide again; --max-unreadable raises the budget",
        )


def _check_finite(prepared: Prepared, embedding: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    if not (np.isfinite(embedding).all() and np.isfinite(scores).all()):
        raise SlideError(
            "the engine answered with values that are not finite",
            path=prepared.slide.path,
            remedy="check the engine with `stamp-deploy parity`, or use --engine onnxruntime --precision fp32",
        )
