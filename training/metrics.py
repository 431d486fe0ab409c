"""Numbers that say how good predictions are: Pearson r per pathway, its median and mean, r with depth.

The headline number is the one that training stops on and that every table shows: Pearson r of each pathway within a
section, the median over pathways, the mean over sections. Targets are never smoothed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


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

    @cached_property
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


def mean_r(sections: Sequence[SectionResult]) -> float:
    """The mean over sections of the mean over pathways of Pearson r: what differences between rows are told in."""
    values = [float(mean_over_pathways(s.r[None])[0]) for s in sections]
    return float(np.mean(values)) if values else float("nan")


def median_over_pathways(r: Array) -> NDArray[np.float64]:
    """Median of each row of r [K, P], over the pathways that have an r; NaN where none has."""
    return _over_pathways(r, np.nanmedian)


def mean_over_pathways(r: Array) -> NDArray[np.float64]:
    """Mean of each row of r [K, P], over the pathways that have an r; NaN where none has."""
    return _over_pathways(r, np.nanmean)


def _over_pathways(r: Array, statistic: Callable[..., Any]) -> NDArray[np.float64]:
    x = np.asarray(r, np.float64)
    known = np.isfinite(x).any(axis=0)
    if not known.any():
        return np.full(len(x), np.nan)
    return np.asarray(statistic(x[:, known], axis=1), np.float64)


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


def mean_over_sections(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the sections that have an r: [S, ...] -> [...]; NaN where none has."""
    known = np.isfinite(r)
    sums, counts = np.where(known, r, 0).sum(axis=0), known.sum(axis=0)
    return np.asarray(np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0), np.float64)


def json_number(value: float) -> float | None:
    """A number for a JSON document, of six digits; None where there is none."""
    return round(float(value), 6) if np.isfinite(value) else None
