"""95 % intervals by the bootstrap, of a row's numbers, of the difference of two rows, and of each pathway's r."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .metrics import Array, SectionResult, mean_over_pathways, mean_over_sections, mean_r, median_over_pathways
from .space_blocks import BLOCK_UM, resampled_r, space_blocks

FEW_PATIENTS = 5
"""An interval over fewer patients says so: with two or three, draws repeat themselves."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and what was drawn for it: "patients", "blocks" (of space) or "sections"; low and high are None
    where none exists."""

    low: float | None
    high: float | None
    unit: str
    note: str = ""


def bootstrap(sections: Sequence[SectionResult], *, draws: int = 2000, seed: int = 0) -> Interval:
    """95 % percentile interval of `headline`.

    Whole patients are drawn with replacement. With one patient no interval over patients exists: then blocks of
    600 um are drawn within each section where the spots' places are known, else whole sections. Such an interval says
    nothing about other patients, and says so.
    """
    found, unit, note = _drawn(sections, median_over_pathways, draws, seed)
    return _interval(found, unit, note)


@dataclass(frozen=True)
class Difference:
    """How much one row's mean r over pathways is above another's, with the interval of the paired bootstrap."""

    value: float
    interval: Interval

    @property
    def word(self) -> str:
        """By `word_of`."""
        return word_of(self.interval.low, self.interval.high)


def word_of(low: float | None, high: float | None) -> str:
    """ "shown": an interval above 0; "harmful": below; "not shown": neither, or there is none."""
    if low is not None and low > 0:
        return "shown"
    return "harmful" if high is not None and high < 0 else "not shown"


def paired_difference(
    a: Sequence[SectionResult], b: Sequence[SectionResult], *, draws: int = 2000, seed: int = 0
) -> Difference:
    """`mean_r` of `a` minus that of `b`, on the same sections and spots; both see the same draws."""
    first, unit, note = _drawn(a, mean_over_pathways, draws, seed)
    second, _, _ = _drawn(b, mean_over_pathways, draws, seed)
    gone = first is None or second is None
    drawn = None if gone else np.asarray(first) - np.asarray(second)
    return Difference(mean_r(a) - mean_r(b), _interval(drawn, unit, note))


def _drawn(
    sections: Sequence[SectionResult], of: Callable[[Array], NDArray[np.float64]], draws: int, seed: int
) -> tuple[NDArray[np.float64] | None, str, str]:
    """Draws of the mean over sections of a statistic of r [K, P] -> [K]; what was drawn, and what to know of it."""
    groups: dict[str, list[float]] = {}
    for s in sections:
        groups.setdefault(s.patient, []).append(float(of(s.r[None])[0]))
    if len(groups) > 1:
        few = f"only {len(groups)} patients" if len(groups) < FEW_PATIENTS else ""
        return _redraw(list(groups.values()), draws, seed), "patients", few
    if sections and all(s.xy_um is not None for s in sections):
        drawn = block_r(sections, draws, seed)
        if len(drawn) < len(sections):
            return None, "blocks", f"no interval exists: {sections[len(drawn)].id} is too small to be cut into blocks"
        note = f"blocks of {BLOCK_UM:g} um within the sections of one patient: says nothing about other patients"
        return np.mean([of(r) for r in drawn], axis=0), "blocks", note
    if len(sections) > 1:
        values = [[v] for group in groups.values() for v in group]
        return _redraw(values, draws, seed), "sections", "one patient: says nothing about other patients"
    return None, "patients", "no interval exists for one section of one patient"


@dataclass(frozen=True, eq=False)
class PathwayIntervals:
    """95 % intervals of the mean r per pathway, float64 [P], NaN where there is none; `unit` as in `Interval`."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    unit: str | None


def pathway_intervals(sections: Sequence[SectionResult], *, draws: int = 2000, seed: int = 0) -> PathwayIntervals:
    """95 % percentile interval of each pathway's mean r over sections, by drawing whole patients with replacement.

    With one patient, blocks of space are drawn within its sections, or its sections, as in `bootstrap`. A pathway that
    fewer than two of the drawn patients or sections measure has no interval.
    """
    r = np.array([s.r for s in sections])
    patients = [s.patient for s in sections]
    if len(set(patients)) == 1 and all(s.xy_um is not None for s in sections):
        return _block_intervals(sections, draws, seed)
    unit = "patients" if len(set(patients)) > 1 else "sections"
    _, group = np.unique(patients if unit == "patients" else np.arange(len(sections)), return_inverse=True)
    count = int(group.max()) + 1
    low, high = np.full((2, r.shape[1]), np.nan)
    if count < 2:
        return PathwayIntervals(low, high, None)
    known = np.isfinite(r)
    sums, counts = np.zeros((count, r.shape[1])), np.zeros((count, r.shape[1]))
    np.add.at(sums, group, np.where(known, r, 0))
    np.add.at(counts, group, known)
    picks = np.random.default_rng(seed).integers(0, count, (draws, count))
    weight = np.array([np.bincount(row, minlength=count) for row in picks], np.float64)
    total = weight @ counts
    drawn = np.divide(weight @ sums, total, out=np.full(total.shape, np.nan), where=total > 0)
    enough = (counts > 0).sum(axis=0) > 1
    if enough.any():
        low[enough], high[enough] = np.nanpercentile(drawn[:, enough], [2.5, 97.5], axis=0)
    return PathwayIntervals(low, high, unit if enough.any() else None)


def _block_intervals(sections: Sequence[SectionResult], draws: int, seed: int) -> PathwayIntervals:
    low, high = np.full((2, sections[0].truth.shape[1]), np.nan)
    drawn = block_r(sections, draws, seed)
    if len(drawn) < len(sections):
        return PathwayIntervals(low, high, None)
    found = mean_over_sections(np.array(drawn))
    measured = np.isfinite(found).all(axis=0)
    if measured.any():
        low[measured], high[measured] = np.percentile(found[:, measured], [2.5, 97.5], axis=0)
    return PathwayIntervals(low, high, "blocks" if measured.any() else None)


def block_r(sections: Sequence[SectionResult], draws: int = 2000, seed: int = 0) -> list[NDArray[np.float64]]:
    """r [draws, P] of each section over blocks of space drawn within it, NaN outside its mask; ends before the first
    section that is too small to be cut into blocks."""
    found: list[NDArray[np.float64]] = []
    for i, s in enumerate(sections):
        r = resampled_r(s.truth, s.predicted, space_blocks(np.asarray(s.xy_um)), draws=draws, seed=(seed, i))
        if r is None:
            break
        found.append(np.where(s.mask, r, np.nan))
    return found


def _redraw(groups: list[list[float]], draws: int, seed: int) -> NDArray[np.float64]:
    sums = np.array([np.sum(g) for g in groups])
    counts = np.array([len(g) for g in groups])
    picks = np.random.default_rng(seed).integers(0, len(groups), (draws, len(groups)))
    return np.asarray(sums[picks].sum(axis=1) / counts[picks].sum(axis=1), np.float64)


def _interval(drawn: NDArray[np.float64] | None, unit: str, note: str) -> Interval:
    if drawn is None or not np.isfinite(drawn).all():
        return Interval(None, None, unit, note)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(low), float(high), unit, note)
