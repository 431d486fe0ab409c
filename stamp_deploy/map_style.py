"""How the map of a pathway is drawn: range, colours, title and place, decided here for every picture.

Heat maps, overview sheets, the report, the notebook card and the pictures of ``evaluate`` all ask `map_styles`, so that
one score never looks different from one page to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .pathway_names import display_name
from .validation import PathwayValidation, Scale, Validation, facts_of, usable

COMMON_RANGE = (-3.0, 3.0)
"""Range of colours on the scale that all slides share, in z. Our own choice: it holds 99.7 % of a normal distribution,
and is the same on every slide and symmetric, so that white always means "as the average tile of the reference"."""
DIVERGING = "RdBu_r"
"""Blue over white to red, for z: ColorBrewer's RdBu reversed (Harrower and Brewer 2003, marked there as safe for
colour-blind readers). Both ends grow darker evenly, so that the size of z survives any loss of hue."""
STRETCHED = "viridis"
"""For maps without a common scale: evenly lighter and safe for colour-blind readers (van der Walt and Smith 2015)."""

Status = Literal["validated", "not validated", "not measured"]


@dataclass(frozen=True)
class MapStyle:
    """How one pathway is shown.

    Attributes
    ----------
    index : int
        Its column in the scores.
    name, label : str
        As the bundle calls it, and for people.
    status : str
        "validated": held-out r reaches `MIN_VALIDATED_R` and its interval lies above 0; "not validated": it does not,
        has no interval, or was not measured while others were; "not measured": no pathway of the bundle has an r.
    r : float or None
        Held-out Pearson r.
    evidence : str
        r in words, with its interval and what it was measured on.
    scale : Scale or None
        Puts a score on the scale that all slides share; None where the bundle gives none.
    low, high : float
        What the ends of the colour bar stand for: z where there is a scale, else scores.
    palette : str
        `DIVERGING` or `STRETCHED`.
    unit : str
        Unit of what is shown.
    """

    index: int
    name: str
    label: str
    status: Status
    r: float | None
    evidence: str
    scale: Scale | None
    low: float
    high: float
    palette: str
    unit: str

    @property
    def pale(self) -> bool:
        """Shown last, in weak colours: whoever looks must not take it for as sure as the others."""
        return self.status == "not validated"

    @property
    def short(self) -> str:
        """ "r 0.62", "not validated, r 0.05" or "r not measured"."""
        words = "r not measured" if self.r is None else f"r {signed(self.r, 2)}"
        return f"{self.status}, {words}" if self.pale else words

    @property
    def title(self) -> str:
        """What stands under the label: `evidence`, and that it is not enough where it is not."""
        return f"{self.status}: {self.evidence}" if self.pale else self.evidence

    @property
    def span(self) -> str:
        """What the colours span, in words."""
        if self.scale is None:
            return "colours stretched to this slide: its 1st to 99th percentile"
        return f"colours span z {signed(self.low)} to {signed(self.high)}, the same on every slide"

    @property
    def score_range(self) -> tuple[float, float]:
        """`low` and `high` as scores."""
        centre, spread = self.scale or (0.0, 1.0)
        return centre + self.low * spread, centre + self.high * spread

    def shown(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores as they are shown: z where there is a scale, else as they are."""
        centre, spread = self.scale or (0.0, 1.0)
        return (np.asarray(scores, np.float64) - centre) / spread


def map_styles(
    names: Sequence[str], scores: NDArray[np.floating], unit: str, validation: Validation | None
) -> tuple[MapStyle, ...]:
    """The style of each pathway, in the order in which pictures show them.

    The bundle's order, but those that are not validated come last.

    Parameters
    ----------
    names : sequence of str
    scores : float [N, P]
        One column a name; only maps without a common scale look at them.
    unit : str
        Unit of the scores.
    validation : Validation or None
        What the bundle says about them.
    """
    every = facts_of(validation, names)
    measured = any(facts.r is not None for facts in every)
    styles = [_style(i, facts, measured, scores[:, i], unit) for i, facts in enumerate(every)]
    return tuple(sorted(styles, key=lambda style: style.pale))


def _style(index: int, facts: PathwayValidation, measured: bool, scores: NDArray[np.floating], unit: str) -> MapStyle:
    scale = usable(facts.scale)
    low, high = COMMON_RANGE if scale is not None else colour_range(scores)
    status: Status = "validated" if facts.validated else "not validated" if measured else "not measured"
    return MapStyle(
        index=index,
        name=facts.name,
        label=display_name(facts.name),
        status=status,
        r=facts.r,
        evidence=evidence(facts),
        scale=scale,
        low=low,
        high=high,
        palette=STRETCHED if scale is None else DIVERGING,
        unit=unit if scale is None else "z on the scale that all slides share",
    )


def evidence(facts: PathwayValidation) -> str:
    """ "r 0.62 (95 %: 0.51 to 0.71), 24 sections of 8 unseen patients"."""
    if facts.r is None:
        return "r not measured"
    text = f"r {signed(facts.r, 2)}"
    if facts.r_low is not None and facts.r_high is not None:
        text += f" (95 %: {signed(facts.r_low, 2)} to {signed(facts.r_high, 2)})"
    else:
        text += " (no interval)"
    if facts.sections:
        text += f", {_count(facts.sections, 'section')}"
        text += f" of {_count(facts.patients, 'unseen patient')}" if facts.patients else ", of no unseen patient"
    return text


def signed(value: float, decimals: int | None = None) -> str:
    """A number with a true minus sign."""
    text = f"{value:g}" if decimals is None else f"{value:.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def colour_range(values: NDArray[np.floating], low: float = 1.0, high: float = 99.0) -> tuple[float, float]:
    """The range that a stretched colour bar spans: percentiles of the finite values, so that one odd tile does not
    flatten the map. A constant map gets a range of width 1 about its value; no values give (0, 1)."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return 0.0, 1.0
    bottom, top = (float(v) for v in np.percentile(finite, [low, high]))
    if top - bottom < 1e-6 * max(1.0, abs(top)):
        return bottom - 0.5, top + 0.5
    return bottom, top


@cache
def colour_table(palette: str = STRETCHED) -> NDArray[np.uint8]:
    """A colour map: uint8 [256, 3] RGB."""
    from matplotlib import colormaps

    return np.asarray(colormaps[palette](np.arange(256), bytes=True))[:, :3]
