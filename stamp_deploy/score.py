"""The engine over the readable tiles of a slide that was prepared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .engine import Engine, EngineInfo, EngineOutput
from .errors import COPY_AGAIN, SlideError
from .gallery_tiles import take_gallery
from .judge_slide import judge_slide
from .prepare import Prepared
from .system import isolation, log
from .tiles import TileStatus
from .trust import SlideTrust
from .trust.sample import TileSample
from .trust.statistics import MIN_TILE_PX

Progress = Callable[[int, int], None]
"""Called with (tiles done, tiles in all) after every batch."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What the engine said of a slide's readable tiles, in ascending order of their positions.

    Attributes
    ----------
    engine : EngineInfo
        As it was when the last tile came back: its batch may have been halved on the way.
    index : int64 [N]
        Positions in the tile set.
    embedding, pathways : float32 [N, D], [N, P]
    pathways_global : float32 [N, P] or None
        None where the bundle has no such read-out.
    trust : SlideTrust
        Whether the slide looks like what the model knows.
    """

    engine: EngineInfo
    index: NDArray[np.int64]
    embedding: NDArray[np.float32]
    pathways: NDArray[np.float32]
    pathways_global: NDArray[np.float32] | None
    trust: SlideTrust


def score(prepared: Prepared, engine: Engine, *, progress: Progress | None = None) -> Scores:
    """Run the engine over the readable tiles; nothing else, so that it is free for the next slide at once.

    At the end the slide is judged and the tiles of the gallery are read again, while the slide is open.

    Raises
    ------
    SlideError
        More tiles are unreadable than `InferOptions.max_unreadable` allows, or a score is not finite.
    OutsideError
        `InferOptions.strict` refuses the slide.
    """
    kept: list[NDArray[np.int64]] = []
    outputs: list[EngineOutput] = []
    total = len(prepared.tiles.coords)
    sample = None
    if prepared.bundle.trust_file is not None and prepared.bundle.tile_px >= MIN_TILE_PX:
        sample = TileSample(prepared.tiles.tissue_fraction)
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
                pixels = batch.pixels if ok.all() else batch.pixels[ok]
                if sample is not None:
                    sample.take(batch.index[ok], pixels)
                yield pixels
            if progress is not None:
                progress(seen, total)

    clock = time.perf_counter()
    for output in engine.stream(readable()):
        isolation.check_stop()
        outputs.append(output)
    streamed = time.perf_counter() - clock
    _check_budget(prepared, seen)

    prepared.seconds.update(wait_for_tiles=waited, engine=streamed - waited, stream=streamed)
    token = log.slide_token(prepared.slide.path)
    log.event("scored", slide=token, tiles=prepared.source.ok, seconds=round(streamed, 3))
    found = EngineOutput.join(outputs)
    index = np.concatenate(kept)
    order = np.argsort(index, kind="stable")
    index, embedding, pathways = index[order], found.embedding[order], found.pathways[order]
    shared = None if found.pathways_global is None else found.pathways_global[order]
    _check_finite(prepared, embedding, pathways, *(() if shared is None else (shared,)))
    trust = judge_slide(prepared, index, sample, embedding)
    prepared.gallery = take_gallery(prepared, index, ~trust.left_out, pathways)
    return Scores(engine.info, index, embedding, pathways, shared, trust)


def _check_budget(prepared: Prepared, seen: int) -> None:
    source, total = prepared.source, len(prepared.tiles.coords)
    unreadable = total - source.ok
    if seen != total:
        raise SlideError(f"only {seen} of {total} tiles came back from the reader", path=prepared.slide.path)
    if unreadable > prepared.options.max_unreadable * total or source.ok == 0:
        first = source.failure
        raise SlideError(
            f"{unreadable} of {total} tissue tiles are unreadable, more than the budget of "
            f"{prepared.options.max_unreadable:.2%}" + (f"; the first {first.cause}" if first else ""),
            path=prepared.slide.path,
            remedy=f"{first.remedy if first else COPY_AGAIN}; --max-unreadable raises the budget",
        )


def _check_finite(prepared: Prepared, *answers: NDArray[np.float32]) -> None:
    if not all(np.isfinite(values).all() for values in answers):
        raise SlideError(
            "the engine answered with values that are not finite",
            path=prepared.slide.path,
            remedy="check the engine with `stamp-deploy parity`, or use --engine onnxruntime --precision fp32",
        )
