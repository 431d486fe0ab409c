"""What alignment added: the aligned model beside the one it started from, pathway by pathway, on held-out sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stamp_deploy.training.intervals import Difference, paired_difference
from stamp_deploy.training.metrics import SectionResult, mean_r

from .synthetic import VISIBLE

if TYPE_CHECKING:
    from stamp_deploy.training.evaluate import Evaluation

FROZEN, ALIGNED = "frozen_head/head", "lora/head"
"""Rows of the evaluation that have the same read-out: a ridge head on the embedding."""


@dataclass(frozen=True)
class Gain:
    """Pearson r of one pathway with the measured scores, mean over sections, before and after alignment."""

    program: str
    visible: bool
    frozen: float
    aligned: float
    difference: Difference


def gains(evaluation: Evaluation) -> list[Gain]:
    """One per pathway; the interval of each difference is the paired bootstrap's of `evaluate`."""
    before, after = evaluation.sections[FROZEN], evaluation.sections[ALIGNED]
    found = []
    for k, name in enumerate(evaluation.names):
        one = np.arange(len(evaluation.names)) == k
        old, new = _only(before, one), _only(after, one)
        found.append(Gain(name, name in VISIBLE, mean_r(old), mean_r(new), paired_difference(new, old)))
    return found


def _only(sections: Sequence[SectionResult], pathway: np.ndarray) -> list[SectionResult]:
    return [replace(section, mask=section.mask & pathway) for section in sections]


def table(found: Sequence[Gain]) -> list[str]:
    """The gains as lines of text."""
    width = max(len(gain.program) for gain in found)
    lines = [f"  {'pathway':<{width}}  frozen  aligned   gain   95 % interval"]
    for gain in found:
        low, high = gain.difference.interval.low, gain.difference.interval.high
        interval = "none" if low is None or high is None else f"{low:+.2f} to {high:+.2f}"
        note = "" if gain.visible else "   (leaves no trace in the picture: near 0 is right)"
        numbers = f"{gain.frozen:+.2f}    {gain.aligned:+.2f}   {gain.difference.value:+.2f}"
        lines.append(f"  {gain.program:<{width}}   {numbers}   {interval:<14}{note}".rstrip())
    return lines
