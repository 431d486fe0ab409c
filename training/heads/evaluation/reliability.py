"""Whether probabilities mean what they say: calibration slope and intercept, Brier score, expected error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import Floats

BINS = 10
STEPS = 50
EPSILON = 1e-6


def reliability(probability: Floats, positive: NDArray[np.bool_]) -> dict[str, Any]:
    """Measures of P(positive) [N], as JSON values.

    slope and intercept are those of logit P(truth) = intercept + slope logit(p) (Cox 1958; 1 and 0 are right; a slope
    below 1 says that predictions are too extreme). intercept_at_slope_1, calibration in the large, is below 0 where
    risks are overstated. brier_scaled is 1 - Brier / Brier of the prevalence; ece is over bins of equal width.
    """
    logit = np.log(np.clip(probability, EPSILON, 1 - EPSILON) / np.clip(1 - probability, EPSILON, 1 - EPSILON))
    both = _logistic(np.stack([np.ones_like(logit), logit], axis=1), positive)
    large = _logistic(np.ones((len(logit), 1)), positive, offset=logit)
    brier = float(np.mean((probability - positive) ** 2))
    prevalence = float(positive.mean())
    bins = _bins(probability, positive)
    return {
        "slope": both and both[1],
        "intercept": both and both[0],
        "intercept_at_slope_1": large and large[0],
        "brier": brier,
        "brier_scaled": 1 - brier / (prevalence * (1 - prevalence)),
        "ece": sum(b["slides"] * abs(b["predicted"] - b["observed"]) for b in bins) / len(probability),
        "bins": bins,
    }


def _bins(probability: Floats, positive: NDArray[np.bool_]) -> list[dict[str, Any]]:
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    return [
        {
            "slides": int(np.sum(place == b)),
            "predicted": float(probability[place == b].mean()),
            "observed": float(positive[place == b].mean()),
        }
        for b in np.unique(place)
    ]


def _logistic(design: Floats, positive: NDArray[np.bool_], offset: Floats | float = 0.0) -> list[float] | None:
    """Coefficients of a logistic regression by Newton's method; None where they do not exist (perfect separation)."""
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ weights + offset, -30, 30)))
        information = design.T @ (design * (p * (1 - p))[:, None])
        try:
            step = np.linalg.solve(information, design.T @ (positive - p))
        except np.linalg.LinAlgError:
            return None
        weights = weights + step
        if np.abs(weights).max() > 1e3:
            return None
        if np.abs(step).max() < 1e-9:
            return [float(w) for w in weights]
    return None
