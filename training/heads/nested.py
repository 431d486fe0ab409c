"""Thresholds that are judged by other predictions than those that set them.

For each fold the temperature, the threshold and the abstention band are fitted inside its training part: that part is
split into patient folds again, and a head is fitted without each. The held-out fold is then judged by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError

from .bags import LabelTable
from .calibration import Judged, fit_rule
from .config import HeadConfig
from .fitting import Problem, fit_head, predict
from .folds import patient_folds, stopping_rows
from .slides import Slides

FIRST_INNER_FIT = 500
"""Inner fits are numbered from here, the outer ones from 0: no two draw the same chance."""


def judged_folds(
    table: LabelTable,
    slides: Slides,
    folds: Sequence[NDArray[np.intp]],
    raw: NDArray[np.float64],
    problem: Problem,
    config: HeadConfig,
    say: Callable[[str], object],
) -> tuple[list[Judged], str]:
    """The rule of each fold, and in words what it was fitted on.

    Parameters
    ----------
    raw : float64 [N, C]
        Held-out outputs of the outer folds. They set the rules of each other where `inner_folds` is 0, or where a
        fold's patients are too few to be split again: each rule then still knows no prediction that it judges.
    """
    parts = [(test, np.setdiff1d(np.arange(len(raw)), test)) for test in folds]
    found: list[Judged] = []
    for number, (test, rest) in enumerate(parts if config.inner_folds >= 2 else ()):
        inner = _inner_predictions(table, slides, rest, problem, config, number)
        if inner is None:
            break
        found.append((test, fit_rule(inner, slides.label[rest], config)))
        say(f"fold {number + 1} of {len(folds)}: its threshold is set by {config.inner_folds} folds inside it")
    if len(found) == len(parts):
        return found, f"{config.inner_folds} patient folds inside each training part"
    others = [(test, fit_rule(raw[rest], slides.label[rest], config)) for test, rest in parts]
    return others, "the held-out predictions of the other folds"


def _inner_predictions(
    table: LabelTable, slides: Slides, rest: NDArray[np.intp], problem: Problem, config: HeadConfig, number: int
) -> NDArray[np.float64] | None:
    """Held-out outputs of a fold's training part; None where its patients are too few to split."""
    try:
        parts = patient_folds([table.slides[i] for i in rest], table.task, config.inner_folds, config.seed + 7 + number)
    except (DataError, ValueError):
        return None
    out = np.zeros((len(rest), problem.outputs))
    for place, part in enumerate(parts):
        test = rest[part]
        known = np.setdiff1d(rest, test)
        fit = FIRST_INNER_FIT + number * config.inner_folds + place
        stop = stopping_rows(table, known, config, fit)
        head, _ = fit_head(slides, np.setdiff1d(known, stop), stop, problem, config, fit)
        out[part] = predict(head, slides, test)
    return out
