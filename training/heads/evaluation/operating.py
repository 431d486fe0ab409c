"""Operating points that were fixed before the cohort was seen, what they would save, and net benefit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import Floats

SENSITIVITIES = (0.90, 0.95, 0.98)
CURVE = np.round(np.arange(0.01, 1.0, 0.01), 2)
"""Threshold probabilities of the decision curve."""
Z = 1.959964


def locked_threshold(probability: Floats, positive: NDArray[np.bool_], sensitivity: float) -> float:
    """The largest threshold of P(positive) that calls at least this share of the positives, on the training side.

    Parameters
    ----------
    probability, positive : [N]
        Held-out predictions of the training slides.
    """
    cases = np.sort(probability[positive])
    missed = int(np.floor((1 - sensitivity) * len(cases) + 1e-9))
    return float(cases[min(missed, len(cases) - 1)])


def counts_at(probability: Floats, positive: NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    """The table of calls (P >= threshold is positive): counts, and shares with Wilson intervals, as JSON values.

    A share of nothing is None. `ruled_out` are the slides below the threshold: with the head as triage, they need no
    confirming test.
    """
    called = probability >= threshold
    tp, fp = int(np.sum(called & positive)), int(np.sum(called & ~positive))
    fn, tn = int(np.sum(~called & positive)), int(np.sum(~called & ~positive))
    return {
        "threshold": threshold,
        "true_positive": tp,
        "false_positive": fp,
        "false_negative": fn,
        "true_negative": tn,
        "sensitivity": share(tp, tp + fn),
        "specificity": share(tn, tn + fp),
        "ppv": share(tp, tp + fp),
        "npv": share(tn, tn + fn),
        "ruled_out": share(tn + fn, len(probability)),
    }


def share(part: int, whole: int) -> dict[str, float] | None:
    """A share with its 95 % interval (Wilson 1927); None of nothing."""
    if whole == 0:
        return None
    p, z2 = part / whole, Z * Z / whole
    centre = (p + z2 / 2) / (1 + z2)
    reach = Z * np.sqrt(p * (1 - p) / whole + z2 / (4 * whole)) / (1 + z2)
    return {"value": p, "low": float(max(0.0, centre - reach)), "high": float(min(1.0, centre + reach))}


def decision_curve(probability: Floats, positive: NDArray[np.bool_]) -> dict[str, list[float]]:
    """Net benefit per slide at each threshold probability t: TP / N - FP / N * t / (1 - t) (Vickers & Elkin 2006).

    Of acting by the head (`head`) and of acting on everybody (`all`); on nobody it is 0.
    """
    n, prevalence = len(positive), float(positive.mean())
    odds = CURVE / (1 - CURVE)
    called = probability[None] >= CURVE[:, None]
    tp, fp = (called & positive).sum(1) / n, (called & ~positive).sum(1) / n
    return {
        "threshold": CURVE.tolist(),
        "head": (tp - fp * odds).tolist(),
        "all": (prevalence - (1 - prevalence) * odds).tolist(),
    }
