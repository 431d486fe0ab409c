"""What was measured of each pathway's score before the bundle left: how well it held up on sections that were left out.

The records are read out of bundle.json's ``validation`` and travel with every result. What was not measured is None,
and stays so: nothing is filled in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

MIN_VALIDATED_R = 0.2
"""Least held-out Pearson r at which a pathway counts as validated. Our own choice: below it a score explains less than
4 % (r squared) of what was measured, and its map is mostly noise."""
QUANTILES = ("min", "p01", "p05", "p25", "p50", "p75", "p95", "p99", "max")
"""Names of the quantiles of predictions and targets, in ascending order."""


class Scale(NamedTuple):
    """The scale that all slides share: z = (score - centre) / spread."""

    centre: float
    spread: float


@dataclass(frozen=True)
class PathwayValidation:
    """One pathway's facts.

    Attributes
    ----------
    r, r_low, r_high : float or None
        Pearson r within sections that training never read, mean over sections, and its 95 % interval; None where it
        was not measured or no interval exists.
    sections, patients : int
        How many r was measured on.
    frozen_r, random_sets_r, features_r : float or None
        r of the controls on the same sections: ridge regression on the frozen model's embeddings, the median of random
        gene sets of the same sizes, ridge regression on 29 stain and texture features.
    depth_r : float or None
        r of the score with the spots' number of counts.
    predictions, targets : dict of float
        Quantiles (`QUANTILES`) of predicted and of measured scores on those sections; empty where not measured.
    scale : Scale or None
        Puts a score of `pathways` on the scale that all slides share.
    scale_global : Scale or None
        The same for a score of `pathways_global`; None where the bundle has no such read-out.
    """

    name: str
    r: float | None = None
    r_low: float | None = None
    r_high: float | None = None
    sections: int = 0
    patients: int = 0
    frozen_r: float | None = None
    random_sets_r: float | None = None
    features_r: float | None = None
    depth_r: float | None = None
    predictions: dict[str, float] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    scale: Scale | None = None
    scale_global: Scale | None = None

    @property
    def validated(self) -> bool:
        """r was measured, is at least `MIN_VALIDATED_R`, and its interval lies above 0."""
        return self.r is not None and self.r >= MIN_VALIDATED_R and self.r_low is not None and self.r_low > 0


@dataclass(frozen=True)
class Validation:
    """What a bundle says of its scores.

    Attributes
    ----------
    unit : str
        Unit of the scores of `pathways`; empty where the bundle does not say.
    pathways : tuple of PathwayValidation
        One a pathway, in the bundle's order.
    lacks : str
        What a reader would want to know and the bundle does not say, in words; empty where nothing is missing.
    """

    unit: str
    pathways: tuple[PathwayValidation, ...] = ()
    lacks: str = ""
