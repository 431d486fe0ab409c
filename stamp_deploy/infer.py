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

from . import isolation
from .assemble import assemble
from .atomic import check_output, staged_directory
from .bundle import Bundle
from .config import InferOptions
from .engine import Engine, load_engine
from .errors import SlideError
from .heads import call_heads
from .prepare import Prepared, prepare
from .result import Result
from .score import Progress, Scores, score
from .slide import slide_file
from .writers import check_names, write_all


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
    slide = slide_file(slide)
    check_names(options.writers, slide)
    prepared = prepare(slide, bundle, options)
    own_engine: Engine | None = None
    try:
        if engine is None:
            isolation.note(stage="loading the engine and reading the slide")
            engine = own_engine = load_engine(
                bundle, options.engine, batch=options.batch, threads=options.threads, precision=options.precision
            )
        isolation.check_stop()
        isolation.note(stage="scoring")
        scores = score(prepared, engine, progress=progress)
        result = conclude(prepared, scores)
    finally:
        prepared.close()
        if own_engine is not None:
            own_engine.close()
    isolation.note(stage="writing the result")
    write(result, out, options)
    return result


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
    return [*([conflict] if conflict else []), *prepared.slide.notes]


def _check_finite(prepared: Prepared, embedding: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    if not (np.isfinite(embedding).all() and np.isfinite(scores).all()):
        raise SlideError(
            "the engine answered with values that are not finite",
            path=prepared.slide.path,
            remedy="check the engine with `stamp-deploy parity`, or use --engine onnxruntime --precision fp32",
        )
