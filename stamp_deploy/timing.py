"""Which stage of a run took longest: from start-up to writing, with what ran side by side taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .result import Result

READER = ("read", "decode", "resample")
IN_SEQUENCE = ("start_up", "open_and_tissue", "stream", "gallery", "heads", "write")
"""Stages that follow each other; during ``stream`` decoding and the engine run side by side."""


def limiting_stage(seconds: Mapping[str, float]) -> str:
    """The stage to look at first.

    Parameters
    ----------
    seconds : dict of float
        Seconds by stage, as in `Result.timing`.

    Returns
    -------
    str
        One of `IN_SEQUENCE`, the longest; instead of ``stream`` the side that the other one waited for: ``engine``,
        or of the reader's stages the longest (``read``, ``decode``, ``resample``).
    """
    longest = max(IN_SEQUENCE, key=lambda name: seconds.get(name, 0.0))
    if longest != "stream" and seconds.get(longest, 0.0) > 0:
        return longest
    if seconds.get("engine", 0.0) >= seconds.get("wait_for_tiles", 0.0):
        return "engine"
    return max(READER, key=lambda name: seconds.get(f"tiler_{name}", 0.0))


def add_time(result: Result, stage: str, seconds: float) -> Result:
    """The result with a further stage's seconds, and the limiting stage found again."""
    timing = {**result.timing, stage: seconds}
    return replace(result, timing=timing, limiting=limiting_stage(timing))
