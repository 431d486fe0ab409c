"""How good slide-level predictions are, with intervals that draw whole patients; and their calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def concordance(
    time: Floats, event: NDArray[np.bool_], risk: Floats, group: NDArray[np.integer] | None = None
) -> float:
    """Harrell's C: of the pairs whose order of events is known, the share with the higher risk on the earlier event.

    A pair is known where the earlier time is an event, and the later one is later or a censoring at the same time;
    equal risks count one half. NaN where no pair is known. With `group` [N] only pairs of one group count: risks of
    several models are not on one scale.
    """
    earlier = (time[:, None] < time[None]) | ((time[:, None] == time[None]) & ~event[None])
    known = event[:, None] & earlier
    np.fill_diagonal(known, False)
    if group is not None:
        known &= group[:, None] == group[None]
    wins = (risk[:, None] > risk[None]) + 0.5 * (risk[:, None] == risk[None])
    return float(wins[known].mean()) if known.any() else float("nan")


def auroc(label: NDArray[np.integer], probability: Floats) -> float:
    """Area under the ROC curve; for more than two classes the mean over classes against the rest.

    `probability` is [N, C]. NaN where a class is absent.
    """
    return _over_classes(label, probability, "roc")


def auprc(label: NDArray[np.integer], probability: Floats) -> float:
    """Average precision, as `auroc`; for two classes that of the positive (last) one."""
    return _over_classes(label, probability, "pr")


def _over_classes(label: NDArray[np.integer], probability: Floats, which: str) -> float:
    from sklearn.metrics import average_precision_score, roc_auc_score

    function = roc_auc_score if which == "roc" else average_precision_score
    classes = [probability.shape[1] - 1] if probability.shape[1] == 2 else range(probability.shape[1])
    values = []
    for c in classes:
        truth = label == c
        if truth.all() or not truth.any():
            return float("nan")
        values.append(float(function(truth, probability[:, c])))
    return float(np.mean(values))


def patient_interval(
    patients: Sequence[str], measure: Callable[[NDArray[np.integer]], float], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of `measure(rows)` over patients drawn with replacement; None where it does not exist.

    Draws without a value (one class only) are left out; if more than half are, there is no interval.
    """
    names = np.asarray(patients)
    rows = [np.flatnonzero(names == name) for name in np.unique(names)]
    if len(rows) < 2:
        return None
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(rows), (draws, len(rows)))
    values = np.array([measure(np.concatenate([rows[i] for i in pick])) for pick in picks])
    known = values[np.isfinite(values)]
    if len(known) < draws / 2:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def areas(
    label: NDArray[np.integer], probability: Floats, patients: Sequence[str], *, draws: int, seed: int
) -> dict[str, tuple[float, tuple[float, float] | None]]:
    """`auroc` and `auprc` of probabilities [N, C] by name, each with its `patient_interval`."""
    found = {}
    for name, measure in (("auroc", auroc), ("auprc", auprc)):
        of_rows = partial(_of_rows, measure, label, probability)
        found[name] = measure(label, probability), patient_interval(patients, of_rows, draws=draws, seed=seed)
    return found


def _of_rows(
    measure: Callable[[NDArray[np.integer], Floats], float],
    label: NDArray[np.integer],
    probability: Floats,
    rows: NDArray[np.integer],
) -> float:
    return measure(label[rows], probability[rows])


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities [N, C] of logits [N, C]."""
    z = logits / temperature
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def negative_log_likelihood(logits: Floats, label: NDArray[np.integer], temperature: float = 1.0) -> float:
    """Mean -log probability of the true class."""
    p = softmax(logits, temperature)[np.arange(len(label)), label]
    return float(-np.log(np.maximum(p, 1e-12)).mean())


def fit_temperature(logits: Floats, label: NDArray[np.integer]) -> float:
    """The temperature in [0.2, 20] with the least negative log likelihood (Guo et al. 2017), on held-out logits."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda t: negative_log_likelihood(logits, label, float(np.exp(t))),
        bounds=(np.log(0.2), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def calibration_error(probability: Floats, label: NDArray[np.integer], bins: int = 10) -> float:
    """Expected calibration error of the likeliest class, over bins of equal width."""
    top, hit = probability.max(axis=1), probability.argmax(axis=1) == label
    place = np.minimum((top * bins).astype(int), bins - 1)
    total = 0.0
    for b in np.unique(place):
        inside = place == b
        total += inside.mean() * abs(top[inside].mean() - hit[inside].mean())
    return float(total)


def binary_threshold(positive: Floats, label: NDArray[np.integer]) -> float:
    """The cut with the largest sensitivity + specificity (Youden), midway between neighbouring probabilities."""
    values = np.unique(positive)
    if len(values) < 2:
        return 0.5
    cuts = (values[1:] + values[:-1]) / 2
    truth = label == 1
    gain = [(positive[truth] >= c).mean() + (positive[~truth] < c).mean() for c in cuts]
    best = np.flatnonzero(np.isclose(gain, max(gain)))
    return float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]])


def abstention_band(
    value: Floats, wrong: NDArray[np.bool_], centre: float, *, max_error: float, max_share: float
) -> dict[str, Any]:
    """The narrowest band around `centre` outside of which at most `max_error` of the calls are wrong.

    Parameters
    ----------
    value : float64 [N]
        The deciding value of each held-out slide.
    wrong : bool [N]
        Whether the call that the value leads to is wrong.
    centre : float
        Inside the band; the band grows by one slide at a time, nearest first.
    max_error : float
        Wrong calls allowed among the calls that remain.
    max_share : float
        Slides that may be abstained on at most.

    Returns
    -------
    dict
        band ([low, high] or None), share of abstentions, error among the rest, and whether the aim was met.
    """
    order = np.argsort(np.abs(value - centre), kind="stable")
    n = len(value)
    best: tuple[float, int] = (float(wrong.mean()), 0)
    for k in range(int(max_share * n) + 1):
        error = float(wrong[order[k:]].mean()) if k < n else 0.0
        if error < best[0] - 1e-12:
            best = (error, k)
        if error <= max_error:
            best = (error, k)
            break
    error, k = best
    band = None
    if k:
        reach = float(np.abs(value[order[k - 1]] - centre))
        inside = value[np.abs(value - centre) <= reach]
        band = [float(inside.min()), float(inside.max())]
    return {"band": band, "share": k / n, "error": error, "met": error <= max_error}
