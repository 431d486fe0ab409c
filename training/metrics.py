"""Numbers that say how good predictions are: Pearson r a pathway, its median, and bootstrap intervals.

The headline number is the one that training stops on and that every table shows: Pearson r of each pathway within a
section, the median over pathways, the mean over sections. Targets are never smoothed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def pearson(truth: Array, predicted: Array) -> NDArray[np.float64]:
    """Pearson r a column: float64 [P].

    NaN where the truth does not vary (no r exists); 0 where only the prediction does not vary, since a constant
    predicts nothing.
    """
    a = np.asarray(truth, np.float64)
    b = np.asarray(predicted, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"truth {a.shape} and prediction {b.shape} differ in shape")
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm_a, norm_b = np.sqrt((a * a).sum(axis=0)), np.sqrt((b * b).sum(axis=0))
    r = np.divide((a * b).sum(axis=0), norm_a * norm_b, out=np.zeros(a.shape[1]), where=norm_a * norm_b > 1e-12)
    r[norm_a <= 1e-9] = np.nan
    return np.asarray(np.clip(r, -1, 1), np.float64)


def section_z(values: Array) -> NDArray[np.float64]:
    """(x - mean) / sd a column within a section, float64 [N, P]; columns that do not vary become 0."""
    x = np.asarray(values, np.float64)
    centred = x - x.mean(axis=0)
    sd = x.std(axis=0)
    return np.asarray(np.divide(centred, sd, out=np.zeros_like(centred), where=sd > 1e-9), np.float64)


@dataclass(frozen=True, eq=False)
class SectionResult:
    """Truth and prediction of one section.

    Attributes
    ----------
    id, patient : str
    truth, predicted : float [N, P]
        Unsmoothed.
    mask : bool [P]
        The pathways that count.
    """

    id: str
    patient: str
    truth: Array
    predicted: Array
    mask: NDArray[np.bool_]

    @property
    def r(self) -> NDArray[np.float64]:
        """Pearson r a pathway, float64 [P]; NaN outside the mask and where the truth does not vary."""
        return np.where(self.mask, pearson(self.truth, self.predicted), np.nan)


def median_r(r: Array) -> float:
    """Median over the pathways that have an r; NaN where none has."""
    known = np.asarray(r)[np.isfinite(r)]
    return float(np.median(known)) if known.size else float("nan")


def section_median_r(truth: Array, predicted: Array, mask: NDArray[np.bool_] | None = None) -> float:
    """The median over pathways of Pearson r within one section."""
    r = pearson(truth, predicted)
    return median_r(r if mask is None else np.where(mask, r, np.nan))


def headline(sections: Sequence[SectionResult]) -> float:
    """The mean over sections of the median over pathways of Pearson r."""
    values = [median_r(s.r) for s in sections]
    return float(np.mean(values)) if values else float("nan")


def pooled_r(sections: Sequence[SectionResult]) -> NDArray[np.float64]:
    """Pearson r a pathway over all spots together, each section z-scored on its own first: float64 [P].

    Sections in which a pathway is masked leave it out. The prediction is z-scored too, so that a section with a wide
    prediction does not outweigh the others.
    """
    pathways = sections[0].truth.shape[1]
    out = np.full(pathways, np.nan)
    truth = [section_z(s.truth) for s in sections]
    predicted = [section_z(s.predicted) for s in sections]
    masks = np.array([s.mask for s in sections])
    for pattern in np.unique(masks.T, axis=0):
        columns = np.flatnonzero((pattern == masks.T).all(axis=1))
        use = np.flatnonzero(pattern)
        if use.size:
            out[columns] = pearson(
                np.concatenate([truth[i][:, columns] for i in use]),
                np.concatenate([predicted[i][:, columns] for i in use]),
            )
    return out


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and what was drawn for it: "patients" or "sections"; low and high are None where none exists."""

    low: float | None
    high: float | None
    unit: str
    note: str = ""


def bootstrap(sections: Sequence[SectionResult], *, draws: int = 2000, seed: int = 0) -> Interval:
    """95 % percentile interval of `headline`, by drawing whole patients with replacement.

    With one patient no interval over patients exists. Where that patient has several sections, these are drawn
    instead: the interval then tells how much sections of this patient differ, and nothing about other patients, and
    says so.
    """
    values = {s.id: median_r(s.r) for s in sections}
    groups: dict[str, list[float]] = {}
    for s in sections:
        groups.setdefault(s.patient, []).append(values[s.id])
    if len(groups) > 1:
        return Interval(*_percentiles(list(groups.values()), draws, seed), unit="patients")
    if len(sections) > 1:
        low, high = _percentiles([[v] for v in values.values()], draws, seed)
        return Interval(low, high, "sections", "one patient: says nothing about other patients")
    return Interval(None, None, "patients", "no interval exists for one section of one patient")


@dataclass(frozen=True, eq=False)
class PathwayIntervals:
    """95 % intervals of the mean r a pathway, float64 [P], NaN where none exists; `unit` as in `Interval`, or None."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    unit: str | None


def pathway_intervals(sections: Sequence[SectionResult], *, draws: int = 2000, seed: int = 0) -> PathwayIntervals:
    """95 % percentile interval of each pathway's mean r over sections, by drawing whole patients with replacement.

    With one patient its sections are drawn, as in `bootstrap`. A pathway that fewer than two of what is drawn measure
    has no interval.
    """
    r = np.array([s.r for s in sections])
    patients = [s.patient for s in sections]
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
    means = np.divide(weight @ sums, total, out=np.full(total.shape, np.nan), where=total > 0)
    enough = (counts > 0).sum(axis=0) > 1
    if enough.any():
        low[enough], high[enough] = np.nanpercentile(means[:, enough], [2.5, 97.5], axis=0)
    return PathwayIntervals(low, high, unit if enough.any() else None)


def _percentiles(groups: list[list[float]], draws: int, seed: int) -> tuple[float, float]:
    sums = np.array([np.sum(g) for g in groups])
    counts = np.array([len(g) for g in groups])
    picks = np.random.default_rng(seed).integers(0, len(groups), (draws, len(groups)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def summary(sections: Sequence[SectionResult], names: Sequence[str], *, seed: int = 0) -> Mapping[str, Any]:
    """Everything a table row needs, as JSON values; r that do not exist are None."""
    r = np.array([s.r for s in sections])
    pooled = pooled_r(sections)
    known = np.isfinite(r)
    sums, counts = np.where(known, r, 0).sum(axis=0), known.sum(axis=0)
    mean_r = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return {
        "mean_of_medians": _finite(headline(sections)),
        "pooled_median": _finite(median_r(pooled)),
        "interval": asdict(bootstrap(sections, seed=seed)),
        "per_section": {
            s.id: {"median_r": _finite(median_r(s.r)), "spots": len(s.truth), "pathways": int(np.isfinite(s.r).sum())}
            for s in sections
        },
        "per_pathway": {
            name: {"mean_r": _finite(mean_r[i]), "pooled_r": _finite(pooled[i])} for i, name in enumerate(names)
        },
    }


def _finite(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
