"""Folds of patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError

from .bags import LabelledSlide, LabelTable
from .config import HeadConfig

EVENTS_TO_STOP = 20
"""Survival likelihoods of fewer events are noise: stopping on them ends many folds at their first epoch."""


def patient_folds(slides: Sequence[LabelledSlide], task: str, folds: int, seed: int) -> list[NDArray[np.intp]]:
    """Rows of each fold: whole patients, classes (or events) spread evenly.

    Raises
    ------
    DataError
        Fewer patients than folds, or a class in a single patient.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    patients = np.array([s.patient for s in slides])
    strata = np.array([int(s.event) if task == "survival" else s.label for s in slides])
    count = len(np.unique(patients))
    if count < folds:
        raise DataError(f"{count} patients are too few for {folds} folds", remedy="use fewer: --folds")
    for stratum in np.unique(strata):
        if len(np.unique(patients[strata == stratum])) < 2:
            raise DataError("a class occurs in one patient only", remedy="merge it with another, or add patients")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [test for _, test in splitter.split(np.zeros(len(slides)), strata, patients)]


def fold_numbers(folds: Sequence[NDArray[np.intp]], count: int) -> NDArray[np.intp]:
    """The fold that each of `count` rows is in: int [N]; 0 for a row of none."""
    found = np.zeros(count, np.intp)
    for number, rows in enumerate(folds):
        found[rows] = number
    return found


def stopping_rows(table: LabelTable, rows: NDArray[np.intp], config: HeadConfig, number: int) -> NDArray[np.intp]:
    """A fifth of the patients of a fold's training part, or none where they, or their events, are too few."""
    inside = [table.slides[i] for i in rows]
    try:
        parts = patient_folds(inside, table.task, 5, config.seed + 1 + number)
    except (DataError, ValueError):
        return rows[:0]
    stop = rows[parts[0]]
    if table.task == "survival" and sum(table.slides[i].event for i in stop) < EVENTS_TO_STOP:
        return rows[:0]
    return stop
