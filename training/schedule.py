"""The learning rate over a run."""

from __future__ import annotations

import math


def rate_factor(step: int, total: int, ramp: float) -> float:
    """Linear warm-up over `ramp` of the steps, then a cosine to 0."""
    first = max(1, round(ramp * total))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, total - first)))
