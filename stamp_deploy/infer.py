"""One slide, from file to result. A newcomer starts here.

    slide -> tissue -> grid -> tiles -> engine -> maps / heads -> result -> writers

`infer_slide` does it all. The steps it is made of can be called apart, so that a batch decodes the next slide
(`prepare`) while the engine works on this one (`score`) and the last one is on its way to the disk (`conclude`,
`write`).
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .assemble import assemble
from .atomic import check_output, staged_directory
from .bundle import Bundle
from .bundle.reference import NO_REFERENCE
from .config import InferOptions
from .engine import Engine, load_engine
from .errors import OutsideError, SlideError
from .heads import OUTSIDE_NO_CALL, call_heads
from .prepare import Prepared, prepare
from .result import Result
from .score import Progress, Scores, score
from .slide import slide_file
from .summarise import add_summaries
from .system import isolation, log
from .timing import add_time
from .trust import SlideTrust
from .trust.judge import judge, not_judged
from .trust.sample import TileSample
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
            engine = own_engine = load_engine(
                bundle, options.engine, batch=options.batch, threads=options.threads, precision=options.precision
            )
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


def conclude(prepared: Prepared, scores: Scores) -> Result:
    """The slide-level calls and the record of the run; `prepared` may be closed already.

    Raises
    ------
    SlideError
        A score is not finite; `OutsideError` where `InferOptions.strict` refuses the slide.
    BundleError
        A head cannot be run.
    """
    order = np.argsort(scores.index, kind="stable")
    index, embedding, pathways = scores.index[order], scores.embedding[order], scores.pathways[order]
    shared = None if scores.pathways_global is None else scores.pathways_global[order]
    _check_finite(prepared, embedding, pathways, *(() if shared is None else (shared,)))
    trust = judge_slide(prepared, index, scores.measured, embedding)
    clock = time.perf_counter()
    refusal = OUTSIDE_NO_CALL if trust.verdict == "outside" else ""
    calls = call_heads(prepared.bundle, embedding, threads=prepared.options.threads, refusal=refusal)
    prepared.seconds["heads"] = time.perf_counter() - clock
    result = assemble(
        prepared,
        scores.engine,
        index,
        embedding,
        pathways,
        calls,
        _warnings(prepared, trust),
        pathways_global=shared,
        trust=trust,
    )
    clock = time.perf_counter()
    result = add_summaries(result, {name: share[index] for name, share in prepared.where.classes.items()})
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


def judge_slide(
    prepared: Prepared, index: NDArray[np.int64], sample: TileSample | None, embedding: NDArray[np.float32]
) -> SlideTrust:
    """Whether the slide looks like what the model knows.

    Parameters
    ----------
    index : int64 [N]
        Positions in the tile set of the tiles that have a score, ascending.
    sample : TileSample or None
        What was measured on the way.
    embedding : float32 [N, D]
        Of the tiles that have a score.

    Raises
    ------
    OutsideError
        The slide is outside or was not judged, and `InferOptions.strict` asks for a verdict.
    """
    clock = time.perf_counter()
    reference = prepared.bundle.read_trust() if sample is not None else None
    if reference is None or sample is None:
        why = NO_REFERENCE if prepared.bundle.trust_file is None else "the model's tiles are too small to be measured"
        trust = not_judged(len(index), why)
    else:
        trust = judge(reference, len(index), np.searchsorted(index, sample.index), sample.measures, embedding)
        prepared.seconds["trust"] = sample.seconds + time.perf_counter() - clock
    token = log.slide_token(prepared.slide.path)
    log.event("judged", slide=token, verdict=trust.verdict, distance=trust.distance, tiles=trust.judged_tiles)
    if prepared.options.strict and trust.verdict in ("outside", "not judged"):
        raise OutsideError(
            f"the slide is {trust.verdict}: {'; '.join(trust.reasons)}",
            path=prepared.slide.path,
            remedy="look at the slide and its microns per pixel; without --strict it is scored, with this as a warning",
        )
    return trust


def _warnings(prepared: Prepared, trust: SlideTrust) -> list[str]:
    """What a reader of the result should know of the slide."""
    conflict = prepared.slide.mpp.conflict
<<<<<<< HEAD
    tissue = prepared.tissue.notes if prepared.tissue is not None else ()
    return [*([conflict] if conflict else []), *prepared.slide.notes, *prepared.absence.notes, *tissue, *_doubts(trust)]


def _doubts(trust: SlideTrust) -> list[str]:
    """The verdict in words where it is not "inside"."""
    heads = {
        "doubtful": "the slide is only partly like what the model knows",
        "outside": "the slide is outside what the model knows",
        "not judged": "whether the slide is like what the model knows was not judged",
    }
    return [f"{heads[trust.verdict]}: {'; '.join(trust.reasons)}"] if trust.verdict in heads else []
=======
    where = prepared.where
    tissue = where.tissue.notes if where.tissue is not None else ()
    return [*([conflict] if conflict else []), *prepared.slide.notes, *where.absence.notes, *tissue, *where.notes]
>>>>>>> main


def _check_finite(prepared: Prepared, *answers: NDArray[np.float32]) -> None:
    if not all(np.isfinite(values).all() for values in answers):
        raise SlideError(
            "the engine answered with values that are not finite",
            path=prepared.slide.path,
            remedy="check the engine with `stamp-deploy parity`, or use --engine onnxruntime --precision fp32",
        )
