"""Slide-level calls: the bundle's heads over all tile embeddings of one slide.

A head is an ONNX graph, `embeddings` float32 [N, D] -> `logits` float32 [C] and `attention` float32 [N]. Its
logits are divided by the fitted temperature (Guo et al. 2017, "On Calibration of Modern Neural Networks")
before they become probabilities; inside the abstention band no call is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, HeadSpec
from .engine.head_model import HeadModel, to_probabilities

OUTSIDE_NO_CALL = "the slide is outside what the model knows"
REPLICATES = 100
MAX_TILES_PER_REPLICATE = 2048
INTERVAL_LEVEL = 0.95
IN_BAND = "its value lies in the head's abstention band"
BELOW_THRESHOLD = "the likeliest class stays below its threshold"
POPULATION = ("slides", "patients", "class_counts", "sites")
"""Of a head's details, what says whom it learned from."""


def value_text(kind: str, value: float, decimals: int = 2) -> str:
    """The value of a head in words: a probability is never a 0.00 or 1.00 that is not exact; a risk score is no
    probability."""
    edge = 10.0**-decimals
    if kind != "survival":
        if 0 < value < edge / 2:
            return f"< {edge:.{decimals}f}"
        if 1 - edge / 2 <= value < 1:
            return f"> {1 - edge:.{decimals}f}"
    return f"{value:.{decimals}f}"


@dataclass(frozen=True, eq=False)
class HeadCall:
    """One head's answer for one slide.

    Attributes
    ----------
    kind : str
        "binary", "multiclass" or "survival".
    classes : tuple of str
        Class names; for survival the names of the risk groups, or ("risk",).
    probabilities : tuple of float
        One per class, summing to 1; for survival the risk score (a log hazard ratio, no unit) alone.
    call : str or None
        The called class; None when the head abstained or makes no call.
    abstained : bool
        No call: the deciding value lay in the abstention band or below its class's threshold, or the slide is outside
        what the model knows.
    cause : str
        Why there is no call; empty where there is one.
    population : dict
        Whom the head learned from, as `train-head` counted it: slides, patients, class_counts, sites (None where the
        table did not state them). Empty for heads of older bundles.
    interval : (float, float) or None
        95 % interval of the deciding value (see `tile_interval`); None for a slide of one tile.
    attention : float32 [N] or None
        The head's attention on each tile.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    call: str | None
    abstained: bool
    interval: tuple[float, float] | None
    attention: NDArray[np.float32] | None = None
    thresholds: tuple[float, ...] = ()
    abstain: tuple[float, float] | None = None
    temperature: float = 1.0
    cause: str = ""
    population: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The number the call rests on: the probability of the positive or likeliest class, or the risk."""
        return deciding_value(self.kind, np.asarray(self.probabilities))

    @property
    def value_name(self) -> str:
        """What `value` is, in words."""
        if self.kind == "binary":
            return f"P({self.classes[-1]})"
        return "P(top class)" if self.kind == "multiclass" else "risk score"

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the attention is per tile and stays in tiles.h5 and tiles.parquet."""
        return {
            "name": self.name,
            "kind": self.kind,
            "classes": list(self.classes),
            "probabilities": [float(p) for p in self.probabilities],
            "value": self.value,
            "value_name": self.value_name,
            "interval": None if self.interval is None else list(self.interval),
            "interval_method": "95 %, bootstrap over this slide's tiles; not model or patient uncertainty",
            "thresholds": list(self.thresholds),
            "abstain": None if self.abstain is None else list(self.abstain),
            "temperature": self.temperature,
            "call": self.call,
            "abstained": self.abstained,
            "cause": self.cause,
            "population": self.population,
        }


def call_heads(
    bundle: Bundle, embedding: NDArray[np.float32], *, threads: int = 0, refusal: str = ""
) -> tuple[HeadCall, ...]:
    """Run every head of the bundle.

    Parameters
    ----------
    embedding : float32 [N, D]
        Embeddings of the readable tiles, N >= 1.
    threads : int
        Threads of ONNX Runtime; 0 leaves the choice to it.
    refusal : str
        Why no head may make a call on this slide: all abstain, with this as the cause.

    Raises
    ------
    BundleError
        A head cannot be loaded, or answers with other shapes than its specification says.
    """
    return tuple(_call(bundle, spec, embedding, threads, refusal) for spec in bundle.heads)


def _call(bundle: Bundle, spec: HeadSpec, embedding: NDArray[np.float32], threads: int, refusal: str) -> HeadCall:
    model = HeadModel(bundle, spec, threads)
    logits, attention = model.run(embedding)
    probabilities = to_probabilities(spec.kind, logits, spec.temperature)
    replicates = _replicates(model, embedding)
    value = deciding_value(spec.kind, probabilities)
    cuts = tuple(float(cut) for cut in spec.thresholds)
    band = None if spec.abstain is None else (float(spec.abstain[0]), float(spec.abstain[1]))
    in_band = band is not None and band[0] <= value <= band[1]
    call = None if in_band or refusal else decide(spec.kind, tuple(spec.classes), probabilities, cuts)
    abstained = call is None and (spec.kind != "survival" or bool(refusal))
    cause = refusal or (IN_BAND if in_band else BELOW_THRESHOLD)
    return HeadCall(
        name=spec.name,
        kind=spec.kind,
        classes=tuple(spec.classes),
        probabilities=tuple(float(p) for p in probabilities),
        call=call,
        abstained=abstained,
        interval=tile_interval(spec.kind, value, replicates, len(embedding)),
        attention=attention,
        thresholds=cuts,
        abstain=band,
        temperature=spec.temperature,
        cause=cause if abstained else "",
        population={key: spec.details[key] for key in POPULATION if key in spec.details},
    )


def deciding_value(kind: str, probabilities: NDArray[np.float64]) -> float:
    """Binary: the positive (last) class; multiclass: the largest probability; survival: the risk."""
    return float(probabilities.max() if kind == "multiclass" else probabilities[-1])


def decide(
    kind: str, classes: tuple[str, ...], probabilities: NDArray[np.float64], cuts: tuple[float, ...]
) -> str | None:
    """The class called outside the abstention band, or None for no call.

    Binary: the last class from the threshold (0.5 where none is given) up. Multiclass: the likeliest class,
    if it reaches its own threshold. Survival: the risk group between its cuts, where the groups have names.
    """
    if kind == "multiclass":
        top = int(probabilities.argmax())
        return None if cuts and probabilities[top] < cuts[top] else classes[top]
    if kind == "survival":
        named = len(cuts) > 0 and len(classes) == len(cuts) + 1
        return classes[int(np.searchsorted(cuts, probabilities[-1], side="right"))] if named else None
    return classes[-1] if probabilities[-1] >= (cuts[0] if cuts else 0.5) else classes[0]


def _replicates(model: HeadModel, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
    """Deciding values [B] of bags drawn with replacement, under a fixed seed: re-runs are identical."""
    n = len(embedding)
    if n < 2:
        return np.empty(0)
    random = np.random.default_rng(0)
    size = min(n, MAX_TILES_PER_REPLICATE)
    values = np.empty(REPLICATES)
    for i in range(REPLICATES):
        values[i] = deciding_value(model.spec.kind, model.probabilities(embedding[random.integers(0, n, size)]))
    return values


def tile_interval(kind: str, value: float, replicates: NDArray[np.float64], n: int) -> tuple[float, float] | None:
    """95 % percentile interval of the deciding value under resampling of the slide's tiles.

    Bags are m = min(n, 2048) tiles out of n (an m-out-of-n bootstrap; Bickel, Goetze and van Zwet 1997), so
    deviations from the value are scaled by sqrt(m / n), on the logit scale for probabilities. It says how far
    the call depends on which tissue was sampled; it does not cover the model's or the cohort's uncertainty.
    """
    if len(replicates) == 0:
        return None
    scale = np.sqrt(min(n, MAX_TILES_PER_REPLICATE) / n)
    tail = (1 - INTERVAL_LEVEL) / 2
    if kind == "survival":
        low, high = value + scale * (np.quantile(replicates, [tail, 1 - tail]) - value)
        return float(low), float(high)
    centre = _logit(np.asarray(value))
    low, high = centre + scale * (np.quantile(_logit(replicates), [tail, 1 - tail]) - centre)
    return float(1 / (1 + np.exp(-low))), float(1 / (1 + np.exp(-high)))


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(p, 1e-9, 1 - 1e-9)
    odds: NDArray[np.float64] = np.log(kept / (1 - kept))
    return odds
