"""Slide-level calls: the bundle's heads over all tile embeddings of one slide.

A head is an ONNX graph, `embeddings` float32 [N, D] -> `logits` float32 [C] and `attention` float32 [N]. Its
logits are divided by the fitted temperature (Guo et al. 2017, "On Calibration of Modern Neural Networks")
before they become probabilities; inside the abstention band no call is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, HeadSpec
from .errors import BundleError

if TYPE_CHECKING:
    import onnxruntime

REPLICATES = 100
MAX_TILES_PER_REPLICATE = 2048
INTERVAL_LEVEL = 0.95


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
        One a class, summing to 1; for survival the risk score (a log hazard ratio, no unit) alone.
    call : str or None
        The called class; None when the head abstained or makes no call.
    abstained : bool
        No call: the deciding value lay in the abstention band or below its class's threshold.
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
        }


def call_heads(bundle: Bundle, embedding: NDArray[np.float32], *, threads: int = 0) -> tuple[HeadCall, ...]:
    """Run every head of the bundle.

    Parameters
    ----------
    embedding : float32 [N, D]
        Embeddings of the readable tiles, N >= 1.
    threads : int
        Threads of ONNX Runtime; 0 leaves the choice to it.

    Raises
    ------
    BundleError
        A head cannot be loaded, or answers with other shapes than its specification says.
    """
    return tuple(_call(bundle, spec, embedding, threads) for spec in bundle.heads)


def head_probabilities(bundle: Bundle, embedding: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Probabilities float32 [C] of every head over one bag of tiles, without calls or intervals; for parity."""
    found = {}
    for spec in bundle.heads:
        logits, _ = _run(_session(bundle, spec, 0), spec, embedding)
        found[spec.name] = to_probabilities(spec.kind, logits, float(spec.temperature or 1.0)).astype(np.float32)
    return found


def _call(bundle: Bundle, spec: HeadSpec, embedding: NDArray[np.float32], threads: int) -> HeadCall:
    session = _session(bundle, spec, threads)
    temperature = float(spec.temperature or 1.0)
    logits, attention = _run(session, spec, embedding)
    probabilities = to_probabilities(spec.kind, logits, temperature)
    replicates = _replicates(session, spec, embedding, temperature)
    value = deciding_value(spec.kind, probabilities)
    cuts = tuple(float(cut) for cut in spec.thresholds)
    band = None if spec.abstain is None else (float(spec.abstain[0]), float(spec.abstain[1]))
    in_band = band is not None and band[0] <= value <= band[1]
    call = None if in_band else decide(spec.kind, tuple(spec.classes), probabilities, cuts)
    return HeadCall(
        name=spec.name,
        kind=spec.kind,
        classes=tuple(spec.classes),
        probabilities=tuple(float(p) for p in probabilities),
        call=call,
        abstained=call is None and spec.kind != "survival",
        interval=tile_interval(spec.kind, value, replicates, len(embedding)),
        attention=attention,
        thresholds=cuts,
        abstain=band,
        temperature=temperature,
    )


def _session(bundle: Bundle, spec: HeadSpec, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores meanwhile
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(bundle.head_path(spec)), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise BundleError(
            f"head {spec.name} cannot be loaded: {error}",
            path=bundle.head_path(spec),
            remedy="export the bundle again",
        ) from error


def _run(
    session: onnxruntime.InferenceSession, spec: HeadSpec, embedding: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """logits float64 [C] and attention float32 [N], checked."""
    try:
        answers = session.run(["logits", "attention"], {"embeddings": np.ascontiguousarray(embedding, np.float32)})
    except Exception as error:
        raise BundleError(f"head {spec.name} fails: {error}", remedy="export the bundle again") from error
    logits = np.asarray(answers[0], np.float64).reshape(-1)
    attention = np.asarray(answers[1], np.float32).reshape(-1)
    if len(attention) != len(embedding) or len(logits) not in _logit_counts(spec):
        raise BundleError(
            f"head {spec.name} answers {len(logits)} logits and {len(attention)} attentions for "
            f"{len(embedding)} tiles and {len(spec.classes)} classes",
            remedy="export the bundle again",
        )
    if not (np.isfinite(logits).all() and np.isfinite(attention).all()):
        raise BundleError(f"head {spec.name} answers with values that are not finite", remedy="export it again")
    return logits, attention


def _logit_counts(spec: HeadSpec) -> tuple[int, ...]:
    if spec.kind == "binary":
        return (1, 2)
    return (1,) if spec.kind == "survival" else (len(spec.classes),)


def to_probabilities(kind: str, logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Calibrated probabilities [C]; of one binary logit (negative, positive); of survival the risk itself."""
    if kind == "survival":
        return logits
    scaled = logits / temperature
    if kind == "binary" and len(scaled) == 1:
        scaled = np.array([0.0, scaled[0]])
    weights = np.exp(scaled - scaled.max())
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


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


def _replicates(
    session: onnxruntime.InferenceSession, spec: HeadSpec, embedding: NDArray[np.float32], temperature: float
) -> NDArray[np.float64]:
    """Deciding values [B] of bags drawn with replacement, under a fixed seed: re-runs are identical."""
    n = len(embedding)
    if n < 2:
        return np.empty(0)
    random = np.random.default_rng(0)
    size = min(n, MAX_TILES_PER_REPLICATE)
    values = np.empty(REPLICATES)
    for i in range(REPLICATES):
        logits, _ = _run(session, spec, embedding[random.integers(0, n, size)])
        values[i] = deciding_value(spec.kind, to_probabilities(spec.kind, logits, temperature))
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
