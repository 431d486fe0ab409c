"""Numbers that say how good predictions are: Pearson r per pathway, its median, r with depth, bootstrap intervals.

The headline number is the one that training stops on and that every table shows: Pearson r of each pathway within a
section, the median over pathways, the mean over sections. Targets are never smoothed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .space_blocks import BLOCK_UM, resampled_r, space_blocks

Array = NDArray[np.floating]
FEW_PATIENTS = 5
"""An interval over fewer patients says so: with two or three, draws repeat themselves."""


def pearson(truth: Array, predicted: Array) -> NDArray[np.float64]:
    """Pearson r per column: float64 [P].

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
    """(x - mean) / sd per column within a section, float64 [N, P]; columns that do not vary become 0."""
    x = np.asarray(values, np.float64)
    centred = x - x.mean(axis=0)
    sd = x.std(axis=0)
    return np.asarray(np.divide(centred, sd, out=np.zeros_like(centred), where=sd > 1e-9), np.float64)


def without_depth(values: Array, depth: Array) -> NDArray[np.float64]:
    """What is left of values [N, P] after least squares on depth [N, K] with an intercept: float64 [N, P]."""
    y = np.asarray(values, np.float64)
    x = np.column_stack([np.ones(len(y)), section_z(depth)])
    return np.asarray(y - x @ np.linalg.lstsq(x, y, rcond=None)[0], np.float64)


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
    xy_um : float [N, 2], optional
        Places of the spots, in microns: what blocks over space are made of.
    depth : float [N, 2], optional
        Log counts and log genes detected of each spot.
    """

    id: str
    patient: str
    truth: Array
    predicted: Array
    mask: NDArray[np.bool_]
    xy_um: Array | None = None
    depth: Array | None = None

    @property
    def r(self) -> NDArray[np.float64]:
        """Pearson r per pathway, float64 [P]; NaN outside the mask and where the truth does not vary."""
        return np.where(self.mask, pearson(self.truth, self.predicted), np.nan)

    @property
    def depth_r(self) -> NDArray[np.float64]:
        """Pearson r of the truth with the log of detected genes, float64 [P]; NaN where the depth is not known."""
        return self._with_depth(lambda depth: pearson(self.truth, _like(depth[:, -1], self.truth)))

    @property
    def predicted_depth_r(self) -> NDArray[np.float64]:
        """The same of the prediction."""
        return self._with_depth(lambda depth: pearson(_like(depth[:, -1], self.truth), self.predicted))

    @property
    def partial_r(self) -> NDArray[np.float64]:
        """Partial correlation per pathway: log counts and log genes are regressed out of truth and prediction."""
        return self._with_depth(
            lambda depth: pearson(without_depth(self.truth, depth), without_depth(self.predicted, depth))
        )

    def _with_depth(self, r: Callable[[Array], NDArray[np.float64]]) -> NDArray[np.float64]:
        if self.depth is None:
            return np.full(self.truth.shape[1], np.nan)
        return np.where(self.mask, r(self.depth), np.nan)


def _like(column: Array, table: Array) -> Array:
    return np.broadcast_to(column[:, None], table.shape)


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
    """Pearson r per pathway over all spots together, each section z-scored on its own first: float64 [P].

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
    found, unit, note = _drawn(sections, _medians, draws, seed)
    return _interval(found, unit, note)


def mean_r(sections: Sequence[SectionResult]) -> float:
    """The mean over sections of the mean over pathways of Pearson r: what differences between rows are told in."""
    values = [float(_means(s.r[None])[0]) for s in sections]
    return float(np.mean(values)) if values else float("nan")


@dataclass(frozen=True)
class Difference:
    """How much one row's mean r over pathways is above another's, with the interval of the paired bootstrap."""

    value: float
    interval: Interval

    @property
    def word(self) -> str:
        """ "shown": the interval lies above 0; "harmful": below; "not shown": neither, or there is none."""
        low, high = self.interval.low, self.interval.high
        if low is not None and low > 0:
            return "shown"
        return "harmful" if high is not None and high < 0 else "not shown"


def paired_difference(
    a: Sequence[SectionResult], b: Sequence[SectionResult], *, draws: int = 2000, seed: int = 0
) -> Difference:
    """`mean_r` of `a` minus that of `b`, on the same sections and spots; both see the same draws."""
    first, unit, note = _drawn(a, _means, draws, seed)
    second, _, _ = _drawn(b, _means, draws, seed)
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
        parts = []
        for i, s in enumerate(sections):
            blocks = space_blocks(np.asarray(s.xy_um))
            r = resampled_r(s.truth, s.predicted, blocks, draws=draws, seed=(seed, i))
            if r is None:
                return None, "blocks", f"no interval exists: {s.id} is too small to be cut into blocks"
            parts.append(of(np.where(s.mask, r, np.nan)))
        note = f"blocks of {BLOCK_UM:g} um within the sections of one patient: says nothing about other patients"
        return np.mean(parts, axis=0), "blocks", note
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
    means = np.divide(weight @ sums, total, out=np.full(total.shape, np.nan), where=total > 0)
    enough = (counts > 0).sum(axis=0) > 1
    if enough.any():
        low[enough], high[enough] = np.nanpercentile(means[:, enough], [2.5, 97.5], axis=0)
    return PathwayIntervals(low, high, unit if enough.any() else None)


def _block_intervals(sections: Sequence[SectionResult], draws: int, seed: int) -> PathwayIntervals:
    low, high = np.full((2, sections[0].truth.shape[1]), np.nan)
    parts = []
    for i, s in enumerate(sections):
        r = resampled_r(s.truth, s.predicted, space_blocks(np.asarray(s.xy_um)), draws=draws, seed=(seed, i))
        if r is None:
            return PathwayIntervals(low, high, None)
        parts.append(np.where(s.mask, r, np.nan))
    drawn = np.array(parts)
    known = np.isfinite(drawn)
    count = known.sum(axis=0)
    means = np.divide(np.where(known, drawn, 0).sum(axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)
    measured = np.isfinite(means).all(axis=0)
    if measured.any():
        low[measured], high[measured] = np.percentile(means[:, measured], [2.5, 97.5], axis=0)
    return PathwayIntervals(low, high, "blocks" if measured.any() else None)


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


def _medians(r: Array) -> NDArray[np.float64]:
    """Median of each row of r [K, P], over the pathways that have an r; NaN where none has."""
    return _over_pathways(r, np.nanmedian)


def _means(r: Array) -> NDArray[np.float64]:
    """Mean of each row of r [K, P], over the pathways that have an r; NaN where none has."""
    return _over_pathways(r, np.nanmean)


def _over_pathways(r: Array, statistic: Callable[..., Any]) -> NDArray[np.float64]:
    x = np.asarray(r, np.float64)
    known = np.isfinite(x).any(axis=0)
    if not known.any():
        return np.full(len(x), np.nan)
    return np.asarray(statistic(x[:, known], axis=1), np.float64)


def summary(sections: Sequence[SectionResult], names: Sequence[str], *, seed: int = 0) -> Mapping[str, Any]:
    """Everything a table row needs, as JSON values; r that do not exist are None.

    ``depth_r`` is the truth's r with the log of detected genes, ``predicted_depth_r`` the prediction's, ``partial_r``
    their partial correlation given log counts and log genes: each the mean over sections of the median over pathways.
    """
    per_section = {key: np.array([getattr(s, key) for s in sections]) for key in ("r", *DEPTH)}
    pathway = {key: _mean_over_sections(values) for key, values in per_section.items()}
    pooled = pooled_r(sections)
    return {
        "mean_of_medians": _finite(headline(sections)),
        "mean_r": _finite(mean_r(sections)),
        "pooled_median": _finite(median_r(pooled)),
        **{key: _finite(float(np.mean([median_r(row) for row in per_section[key]]))) for key in DEPTH},
        "interval": asdict(bootstrap(sections, seed=seed)),
        "per_section": {
            s.id: {"median_r": _finite(median_r(s.r)), "spots": len(s.truth), "pathways": int(np.isfinite(s.r).sum())}
            for s in sections
        },
        "per_pathway": {
            name: {
                "mean_r": _finite(pathway["r"][i]),
                "pooled_r": _finite(pooled[i]),
                **{key: _finite(pathway[key][i]) for key in DEPTH},
            }
            for i, name in enumerate(names)
        },
    }


DEPTH = ("depth_r", "predicted_depth_r", "partial_r")


def _mean_over_sections(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the sections that have an r: [S, P] -> [P]; NaN where none has."""
    known = np.isfinite(r)
    sums, counts = np.where(known, r, 0).sum(axis=0), known.sum(axis=0)
    return np.asarray(np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0), np.float64)


def _finite(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
