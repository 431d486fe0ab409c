"""The verdict: did alignment help? Paired differences against the controls, and a stated rule over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..intervals import Difference, paired_difference
from ..metrics import SectionResult
from .rows import KINDS

RULE = (
    "Shown: mean r over pathways is above the frozen model's by the same read-out (head against head, ridge against "
    "ridge) and above that of the run on shuffled targets (ridge against ridge), each with a 95 % interval above 0. "
    "Harmful: an interval against the frozen model lies below 0. Not shown: everything else."
)
FROZEN = (("head", "frozen_head/head"), ("probe", "frozen_ridge_cv/baseline"))
CONTROLS = (
    ("neighbours", "frozen_ridge_cv/neighbours"),
    ("probe", "shuffled/probe"),
    ("probe", "random_sets/probe"),
    ("probe", "features_29/baseline"),
    ("probe", "depth_only/baseline"),
)
UNJUDGED = ("frozen_head", "random_sets", "shuffled")
"""Runs that are controls themselves."""


@dataclass(frozen=True)
class Comparison:
    """The judged run against one row, both read out in the same way."""

    row: str
    how: str
    difference: Difference

    @property
    def label(self) -> str:
        """For a person."""
        return KINDS[self.row].label

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "against": self.row,
            "label": self.label,
            "how": self.how,
            "difference": round(self.difference.value, 6),
            "interval": asdict(self.difference.interval),
            "word": self.difference.word,
        }


@dataclass(frozen=True)
class Verdict:
    """What the table says about alignment.

    Attributes
    ----------
    word : str
        "shown", "not shown" or "harmful", by `RULE`.
    sentence : str
        The same in words, with the rows that decide it.
    comparisons : tuple of Comparison
    """

    word: str
    sentence: str
    comparisons: tuple[Comparison, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "word": self.word,
            "sentence": self.sentence,
            "rule": RULE,
            "comparisons": [c.to_dict() for c in self.comparisons],
        }


def judge(sections: Mapping[str, Sequence[SectionResult]], key: str, seed: int = 0) -> Verdict | None:
    """The verdict on the run of row `key`; None for a run that is a control itself.

    Parameters
    ----------
    sections : dict
        Row and read-out ("lora/probe") -> its results.
    """
    if key in UNJUDGED:
        return None
    compared = tuple(
        Comparison(
            against.split("/")[0], how, paired_difference(sections[f"{key}/{how}"], sections[against], seed=seed)
        )
        for how, against in (*FROZEN, *CONTROLS)
        if f"{key}/{how}" in sections and against in sections
    )
    return Verdict(*_decide(compared), compared)


def _decide(compared: Sequence[Comparison]) -> tuple[str, str]:
    frozen = [c for c in compared if c.row in ("frozen_head", "frozen_ridge_cv") and c.how != "neighbours"]
    shuffled = next((c for c in compared if c.row == "shuffled"), None)
    harm = [c for c in frozen if c.difference.word == "harmful"]
    if harm:
        word, why = "harmful", "below " + _named(harm)
    elif not frozen:
        word, why = "not shown", "no frozen model to compare with"
    elif any(c.difference.word != "shown" for c in frozen):
        word, why = "not shown", "not above " + _named([c for c in frozen if c.difference.word != "shown"])
    elif shuffled is None:
        word, why = "not shown", f"above {_named(frozen)}, but the control on shuffled targets was not run"
    elif shuffled.difference.word != "shown":
        word, why = "not shown", f"above {_named(frozen)}, but not above {_named([shuffled])}"
    else:
        word, why = "shown", "above " + _named([*frozen, shuffled])
    return word, f"alignment: {word}: {why}{_pathways(compared)}"


def _pathways(compared: Sequence[Comparison]) -> str:
    """Whether the pathways teach more than random genes do: said beside the verdict, and no part of it."""
    random = next((c for c in compared if c.row == "random_sets"), None)
    if random is None:
        return ". That pathways teach more than random gene sets was not tested"
    says = {"shown": "is shown", "not shown": "is not shown", "harmful": "is refuted"}[random.difference.word]
    return f". That pathways teach more than random gene sets {says} ({_number(random.difference)})"


def _named(compared: Sequence[Comparison]) -> str:
    return ", ".join(f"{c.label} ({_number(c.difference)})" for c in compared)


def _number(difference: Difference) -> str:
    low, high = difference.interval.low, difference.interval.high
    shown = "no interval" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"
    return f"{difference.value:+.3f} [{shown}]"
