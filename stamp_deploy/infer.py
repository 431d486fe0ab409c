"""One slide, from file to result. A newcomer starts here.

    slide -> tissue -> grid -> tiles -> engine -> maps / heads -> result -> writers

`infer_slide` does it all. The steps it is made of can be called apart, so that a batch decodes the next slide
(`prepare`) while the engine works on this one (`score`) and the last one is on its way to the disk (`conclude`,
`write`).
"""

from __future__ import annotations

import time
from pathlib import Path

from .assemble import assemble
from .atomic import check_output, staged_directory
from .bundle import Bundle
from .config import InferOptions
from .engine import Engine, load_engine
from .heads import OUTSIDE_NO_CALL, call_heads
from .prepare import Prepared, prepare
from .result import Result
from .score import Progress, Scores, score
from .slide import slide_file
from .summarise import add_summaries
from .system import isolation
from .timing import add_time
from .trust import SlideTrust
from .writers import check_names, write_all
from .writers.formats import FORMATS


def infer_slide(
    slide: Path,
    bundle: Bundle,
    out: Path | None,
    options: InferOptions,
    *,
    engine: Engine | None = None,
    progress: Progress | None = None,
    start_up_s: float = 0.0,
) -> Result:
    """Score one slide and write its result folder, whole or not at all.

    Parameters
    ----------
    slide : Path
        The whole-slide image.
    bundle : Bundle
        A loaded, verified bundle.
    out : Path or None
        The result folder; it appears when everything in it is on the disk. None writes nothing.
    options : InferOptions
        How to do it.
    engine : Engine, optional
        A loaded engine, kept open; without it one is loaded and closed again.
    progress : callable, optional
        Called with (tiles done, tiles in all).
    start_up_s : float
        Seconds that were spent for this slide before: imports, loading the bundle. They count when the stage is
        named that took longest.

    Raises
    ------
    StampError
        With the cause, the remedy and the exit code; no output is left behind.
    """
    slide = slide_file(slide)
    if out is not None:
        check_output(out, overwrite=options.overwrite)
        check_names(options.writers, slide)
    prepared = prepare(slide, bundle, options)
    own_engine: Engine | None = None
    try:
        if engine is None:
            clock = time.perf_counter()
            isolation.note(stage="loading the engine and reading the slide")
            engine = own_engine = engine_for(bundle, options)
            start_up_s += time.perf_counter() - clock
        prepared.seconds["start_up"] = start_up_s
        isolation.check_stop()
        isolation.note(stage="scoring")
        scores = score(prepared, engine, progress=progress)
        result = conclude(prepared, scores)
    finally:
        prepared.close()
        if own_engine is not None:
            own_engine.close()
    if out is None:
        return result
    isolation.note(stage="writing the result")
    return write(result, out, options)


def engine_for(bundle: Bundle, options: InferOptions) -> Engine:
    """The engine that the options ask for; see `load_engine`."""
    return load_engine(
        bundle,
        options.engine,
        batch=options.batch,
        threads=options.threads,
        precision=options.precision,
        url=options.url,
    )


def conclude(prepared: Prepared, scores: Scores) -> Result:
    """The slide-level calls and the record of the run; `prepared` may be closed already.

    Raises
    ------
    BundleError
        A head cannot be run.
    """
    trust = scores.trust
    clock = time.perf_counter()
    refusal = OUTSIDE_NO_CALL if trust.verdict == "outside" else ""
    calls = call_heads(prepared.bundle, scores.embedding, threads=prepared.options.threads, refusal=refusal)
    prepared.seconds["heads"] = time.perf_counter() - clock
    result = assemble(
        prepared,
        scores.engine,
        scores.index,
        scores.embedding,
        scores.pathways,
        calls,
        _warnings(prepared, trust),
        pathways_global=scores.pathways_global,
        trust=trust,
    )
    clock = time.perf_counter()
    result = add_summaries(result, {name: share[scores.index] for name, share in prepared.where.classes.items()})
    return add_time(result, "summaries", time.perf_counter() - clock)


def write(result: Result, out: Path, options: InferOptions) -> Result:
    """Write the result folder: staged beside `out`, flushed, renamed; returns the result with the time of it.

    The formats that tell how long the run took come last, so that they can tell how long the others took.
    """
    tell = [name for name in options.writers if name in FORMATS and FORMATS[name].tells_time]
    with staged_directory(out, overwrite=options.overwrite, hashes=True) as staging:
        clock = time.perf_counter()
        write_all(result, staging, [name for name in options.writers if name not in tell])
        result = add_time(result, "write", time.perf_counter() - clock)
        write_all(result, staging, tell)
    return result


def _warnings(prepared: Prepared, trust: SlideTrust) -> list[str]:
    """What a reader of the result should know of the slide."""
    conflict = prepared.slide.mpp.conflict
    where = prepared.where
    tissue = where.tissue.notes if where.tissue is not None else ()
    return [
        *([conflict] if conflict else []),
        *prepared.slide.notes,
        *where.absence.notes,
        *tissue,
        *where.notes,
        *trust.warnings,
    ]
