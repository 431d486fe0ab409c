"""What was measured of each pathway's score before the bundle left: how well it held up on sections that were left out.

The records are read out of bundle.json's ``validation`` and travel with every result. What was not measured is None,
and stays so: nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

MIN_VALIDATED_R = 0.2
"""Least held-out Pearson r at which a pathway counts as validated. Our own choice: below it a score explains less than
4 % (r squared) of what was measured, and its map is mostly noise."""
GLOBAL_UNIT = "z over the spots of all training sections"
"""Unit of the read-out that is comparable across slides, as training fits it."""
QUANTILES = ("min", "p01", "p05", "p25", "p50", "p75", "p95", "p99", "max")
"""Names of the quantiles of predictions and targets, in ascending order."""


SCALES = ("scale", "scale_global")
"""Fields of `PathwayValidation` that hold a scale."""


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
        How many r was measured on. `patients` counts those of whom no section was trained on.
    frozen_r, random_sets_r, features_r : float or None
        r of the controls on the same sections: ridge regression on the frozen model's embeddings, on those of a model
        that was taught random gene sets of the same sizes, and on 29 stain and texture features.
    depth_r : float or None
        r of the predicted score with the log of the number of counts per spot.
    global_r : float or None
        r of the read-out that is comparable across slides, over the spots of all those sections together.
    predictions, targets, global_predictions : dict of float
        Quantiles (`QUANTILES`) of predicted and of measured scores, and of the read-out that is comparable across
        slides, on those sections; empty where not measured.
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
    global_r: float | None = None
    predictions: dict[str, float] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    global_predictions: dict[str, float] = field(default_factory=dict)
    scale: Scale | None = None
    scale_global: Scale | None = None

    @property
    def validated(self) -> bool:
        """r was measured, is at least `MIN_VALIDATED_R`, and its interval lies above 0."""
        return self.r is not None and self.r >= MIN_VALIDATED_R and self.r_low is not None and self.r_low > 0


@dataclass(frozen=True)
class Validation:
    """What a bundle says about its scores.

    Attributes
    ----------
    unit : str
        Unit of the scores of `pathways`; empty where the bundle does not say.
    pathways : tuple of PathwayValidation
        One per pathway, in the bundle's order.
    lacks : str
        What a reader would want to know and the bundle does not say, in words; empty where nothing is missing.
    """

    unit: str
    pathways: tuple[PathwayValidation, ...] = ()
    lacks: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what was not measured is None."""
        return {
            "unit": self.unit,
            "min_validated_r": MIN_VALIDATED_R,
            "lacks": self.lacks,
            "pathways": [
                {**asdict(p), **{key: _plain(getattr(p, key)) for key in SCALES}, "validated": p.validated}
                for p in self.pathways
            ],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Validation:
        """The inverse of `to_dict`."""
        names = {f.name for f in fields(PathwayValidation)}
        entries = [{k: v for k, v in entry.items() if k in names} for entry in value["pathways"]]
        for entry in entries:
            entry |= {key: None if entry[key] is None else Scale(**entry[key]) for key in SCALES}
        return cls(value["unit"], tuple(PathwayValidation(**entry) for entry in entries), value["lacks"])


def facts_of(validation: Validation | None, names: Sequence[str]) -> list[PathwayValidation]:
    """What is known of each pathway; nothing but its name of one that the bundle does not speak of."""
    known = {} if validation is None else {facts.name: facts for facts in validation.pathways}
    return [known.get(name, PathwayValidation(name)) for name in names]


def usable(scale: Scale | None) -> Scale | None:
    """The scale; None where its spread is 0, which puts nothing on a scale."""
    return scale if scale is not None and scale.spread > 0 else None


def _plain(scale: Scale | None) -> dict[str, float] | None:
    return None if scale is None else scale._asdict()
