"""Whether the slide that was scored looks like what its model knows, and what a reader is told of it."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from .bundle.reference import NO_REFERENCE
from .errors import OutsideError
from .prepare import Prepared
from .system import log
from .trust import SlideTrust
from .trust.judge import judge, not_judged
from .trust.sample import TileSample


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
    reference = prepared.bundle.reference
    if reference is None or sample is None:
        lacks_it = prepared.bundle.trust_file is None
        why = f"the bundle {NO_REFERENCE}" if lacks_it else "the model's tiles are too small to be measured"
        trust = not_judged(len(index), why)
    else:
        trust = judge(reference, len(index), np.searchsorted(index, sample.index), sample.measures, embedding)
    if sample is not None:
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
