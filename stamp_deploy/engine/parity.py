"""Parity: does a candidate say what its reference says, tile by tile?

One module compares every pair along the chain: torch with the adapter apart -> merged -> ONNX -> each engine
and precision. A report is true when it passed, counts NaN as a failure, and prints the smallest tolerance that
would have passed. docs/parity.md explains the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ParityError

Float = NDArray[np.float64]
ONE_SIDED_99 = 2.326
"""Standard errors below which one value in a hundred lies."""


@dataclass(frozen=True)
class Tolerance:
    """What a precision may cost.

    ``max_abs`` is in units of the reference's largest value where that is above 1, and plain otherwise, so
    that an encoder with large activations is held to the same relative rounding; so is ``head_max_abs``, for log
    hazards. None means not judged.
    ``spearman_min`` and ``pearson_min`` hold for the tiles that a site will see: `correlation_floor` is what some
    tiles must show. ``bias_max`` is the mean difference of a pathway's scores in standard deviations of the reference's
    scores, ``slope_max`` how far the slope of candidate on reference may be from 1, ``norm_max`` how far the median
    ratio of the embeddings' lengths may be from 1: what a cosine and a correlation cannot see.
    """

    cosine_min: float
    cosine_median: float
    max_abs: float | None
    pathway_max_abs: float | None
    spearman_min: float
    pearson_min: float
    bias_max: float
    slope_max: float
    norm_max: float
    head_max_abs: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        cosine_min=0.99999,
        cosine_median=0.999999,
        max_abs=1e-5,
        pathway_max_abs=1e-4,
        spearman_min=0.9999,
        pearson_min=0.99999,
        bias_max=0.001,
        slope_max=0.001,
        norm_max=0.0001,
        head_max_abs=1e-4,
        reason="the same arithmetic in another order: rounding of 2**-24 grows a hundredfold or so over blocks, and "
        "tenfold more in a linear head on correlated dimensions; scores are in standard deviations",
    ),
    "fp16": Tolerance(
        cosine_min=0.999,
        cosine_median=0.9999,
        max_abs=None,
        pathway_max_abs=None,
        spearman_min=0.995,
        pearson_min=0.999,
        bias_max=0.01,
        slope_max=0.01,
        norm_max=0.002,
        head_max_abs=0.01,
        reason="11 significant bits in the matrix products, sums in fp32; a wrong cast or overflow falls far below",
    ),
    "bf16": Tolerance(
        cosine_min=0.99,
        cosine_median=0.999,
        max_abs=None,
        pathway_max_abs=None,
        spearman_min=0.99,
        pearson_min=0.99,
        bias_max=0.05,
        slope_max=0.03,
        norm_max=0.01,
        head_max_abs=0.03,
        reason="8 significant bits, sums in fp32: single elements move by a percent, the order of tiles must not",
    ),
    "int8": Tolerance(
        cosine_min=0.9,
        cosine_median=0.98,
        max_abs=None,
        pathway_max_abs=None,
        spearman_min=0.98,
        pearson_min=0.98,
        bias_max=0.2,
        slope_max=0.15,
        norm_max=0.1,
        head_max_abs=0.05,
        reason="256 levels a tensor: embeddings drift, so what is read, the order of tiles by pathway, is the gate",
    ),
}
TOLERANCES["fp8"] = replace(TOLERANCES["int8"], reason="4 significant bits (e4m3): held to the bounds of int8")


@dataclass(frozen=True)
class Outputs:
    """What one side said of N tiles.

    Attributes
    ----------
    embedding : float32 [N, D]
    pathways : float32 [N, P]
    heads : dict of str to float32 [C]
        Class probabilities (or the log hazard) of each slide-level head over these N tiles.
    pathways_global : float32 [N, P] or None
        The read-out that is comparable across slides, where there is one.
    """

    embedding: NDArray[np.float32]
    pathways: NDArray[np.float32]
    heads: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    pathways_global: NDArray[np.float32] | None = None

    @property
    def readouts(self) -> tuple[NDArray[np.float32], ...]:
        """The pathway scores: one array [N, P] a read-out."""
        return (self.pathways,) if self.pathways_global is None else (self.pathways, self.pathways_global)

    def scores(self) -> NDArray[np.float64]:
        """The scores of all read-outs side by side: [N, P] or [N, 2 P]."""
        return np.concatenate(self.readouts, axis=1).astype(np.float64)


@dataclass(frozen=True)
class StageReport:
    """The comparison of one candidate with its reference; true when it passed.

    ``needed`` holds, for each judged number, a tolerance that would have passed: the number itself.
    """

    stage: str
    reference: str
    candidate: str
    precision: str
    tiles: int
    metrics: dict[str, float | None]
    spearman: dict[str, float | None]
    failures: tuple[str, ...]
    tolerance: Tolerance
    details: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return not self.failures

    @property
    def passed(self) -> bool:
        """Whether every number is within tolerance."""
        return not self.failures

    @property
    def needed(self) -> dict[str, float | None]:
        """Tolerances that would have passed."""
        return dict(self.metrics)

    def to_dict(self) -> dict[str, Any]:
        """For parity.json."""
        return {
            "stage": self.stage,
            "reference": self.reference,
            "candidate": self.candidate,
            "precision": self.precision,
            "passed": self.passed,
            "tiles": self.tiles,
            "metrics": self.metrics,
            "spearman": self.spearman,
            "failures": list(self.failures),
            "tolerance": asdict(self.tolerance),
            "details": self.details,
        }

    def raise_if_failed(self) -> None:
        """Stop when the candidate differs.

        Raises
        ------
        ParityError
            Naming every number that is out of tolerance.
        """
        if self.failures:
            raise ParityError(
                f"{self.candidate} does not reproduce {self.reference}: {'; '.join(self.failures)}",
                remedy="use a higher precision, or report this with the parity table",
            )


def compare(
    reference: Outputs,
    candidate: Outputs,
    *,
    stage: str,
    names: tuple[str, str],
    precision: str,
    pathways: tuple[str, ...],
    tolerance: Tolerance | None = None,
    tiles: int | None = None,
    details: dict[str, str] | None = None,
) -> StageReport:
    """Compare two sides over the same tiles.

    Parameters
    ----------
    reference, candidate : Outputs
        Both over the same N tiles, N >= 2.
    stage : str
        Which link of the chain this is.
    names : (str, str)
        What to call the two sides.
    precision : str
        A key of `TOLERANCES`.
    pathways : tuple of str
        Names of the P pathways.
    tolerance : Tolerance, optional
        Instead of the precision's own.
    tiles : int, optional
        Where the rows are the same tiles again and again: how many tiles. Single rows are judged over all of them,
        what needs many tiles (correlations, bias and slope) in each whole pass, and the worst pass counts.

    Raises
    ------
    ParityError
        The two sides have different shapes, or there are too few tiles to compare.
    """
    limits = tolerance or TOLERANCES[precision]
    _check_shapes(reference, candidate, pathways)
    total = len(reference.embedding)
    tiles = tiles or total
    passes = [np.arange(start, start + tiles) for start in range(0, total - tiles + 1, tiles)]
    failures: list[str] = []
    metrics: dict[str, float | None] = {}
    ref, can = (np.asarray(side.embedding, np.float64) for side in (reference, candidate))
    for what, values in (("embedding", can), ("pathway", candidate.scores())):
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        if bad:
            failures.append(f"{what} values are not finite in {bad} of {len(values)} tiles")
    cosine = row_cosine(ref, can)
    metrics["cosine_min"], metrics["cosine_median"] = _number(cosine.min()), _number(np.median(cosine))
    metrics["max_abs"] = _number(_scaled_max_abs(ref, can))
    metrics["norm_max"] = _number(_norm_error(ref, can))
    metrics["pathway_max_abs"] = _number(
        max(_scaled_max_abs(a, b) for a, b in zip(reference.readouts, candidate.readouts, strict=True))
    )
    ref, can = reference.scores(), candidate.scores()
    columns = (*pathways, *(f"{name} (global)" for name in pathways))[: ref.shape[1]]
    rho = {
        name: _least(_number(spearman(ref[rows, i], can[rows, i])) for rows in passes) for i, name in enumerate(columns)
    }
    metrics["spearman_min"] = _least(rho.values())
    metrics["pearson_min"] = _least(
        _number(pearson(ref[rows, i], can[rows, i])) for i in range(len(columns)) for rows in passes
    )
    shifts = [_bias_and_slope(ref[rows], can[rows]) for rows in passes]
    metrics["bias_max"] = _number(max(bias for bias, _ in shifts))
    metrics["slope_max"] = _number(max(slope for _, slope in shifts))
    metrics["head_max_abs"] = _head_difference(reference.heads, candidate.heads)
    for key in ("cosine_min", "cosine_median"):
        _judge(failures, key, metrics[key], getattr(limits, key), at_least=True)
    for key in ("spearman_min", "pearson_min"):
        limit, value = getattr(limits, key), metrics[key]
        if value is None or value < correlation_floor(limit, tiles):
            _judge(failures, key, value, limit, at_least=True)
    for key in ("max_abs", "pathway_max_abs", "norm_max", "bias_max", "slope_max"):
        if getattr(limits, key) is not None:
            _judge(failures, key, metrics[key], getattr(limits, key), at_least=False)
    if reference.heads:
        _judge(failures, "head_max_abs", metrics["head_max_abs"], limits.head_max_abs, at_least=False)
    return StageReport(
        stage,
        names[0],
        names[1],
        precision,
        tiles,
        metrics,
        rho,
        tuple(failures),
        limits,
        details or {},
    )


def correlation_floor(limit: float, tiles: int) -> float:
    """What a correlation over some tiles must reach when `limit` holds for all tiles.

    A correlation over few tiles scatters. The floor is the lower end of its one-sided 99 % interval about the limit, by
    Fisher's z with the variance of Bonett and Wright (2000), (1 + r^2 / 2) / (n - 3), which serves Spearman's
    coefficient and is wide enough for Pearson's. So a candidate fails when the tiles contradict the limit, and an
    engine that keeps it is not accepted on some tiles and refused on others.
    """
    if limit >= 1:
        return limit
    error = np.sqrt((1 + limit**2 / 2) / max(tiles - 3, 1))
    return float(np.tanh(np.arctanh(limit) - ONE_SIDED_99 * error))


def row_cosine(a: Float, b: Float) -> Float:
    """Cosine of each row of [N, D] with its partner; two zero rows agree, one zero row does not."""
    norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = norm_a * norm_b
    both_zero = (norm_a == 0) & (norm_b == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.where(product > 0, (a * b).sum(axis=1) / product, np.where(both_zero, 1.0, 0.0))
    return np.where(np.isfinite(product), cosine, np.nan)


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson correlation of two vectors; NaN where either is not finite or only one is constant."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    size_x, size_y = float(np.sqrt(x @ x)), float(np.sqrt(y @ y))
    if size_x == 0 and size_y == 0:
        return 1.0
    if size_x == 0 or size_y == 0:
        return float("nan")
    return float(np.clip((x @ y) / (size_x * size_y), -1.0, 1.0))


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman correlation: Pearson of the mean ranks (ties share theirs)."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    return pearson(_ranks(x), _ranks(y))


def to_table(stages: list[StageReport]) -> str:
    """A readable table, one row a stage, with the failures below."""
    columns = ("cosine_min", "max_abs", "spearman_min", "pearson_min", "bias_max", "slope_max", "head_max_abs")
    width = max([5, *(len(stage.stage) for stage in stages)])
    lines = [f"{'stage':<{width}}  tiles  {'  '.join(f'{name:>12}' for name in columns)}  verdict"]
    for stage in stages:
        numbers = "  ".join(_cell(stage.metrics[name]) for name in columns)
        lines.append(f"{stage.stage:<{width}}  {stage.tiles:>5}  {numbers}  {'pass' if stage else 'FAIL'}")
    for stage in stages:
        lines.extend(f"{stage.stage}: {failure}" for failure in stage.failures)
    return "\n".join(lines)


def _check_shapes(reference: Outputs, candidate: Outputs, pathways: tuple[str, ...]) -> None:
    if reference.embedding.shape != candidate.embedding.shape:
        raise ParityError(f"embeddings are {candidate.embedding.shape}, not {reference.embedding.shape}")
    shapes = [[scores.shape for scores in side.readouts] for side in (reference, candidate)]
    if shapes[0] != shapes[1] or any(shape[1] != len(pathways) for shape in shapes[0]):
        raise ParityError(f"pathway scores are {_list(shapes[1])}, not {_list(shapes[0])}")
    if len(reference.embedding) < 2:
        raise ParityError("parity needs at least two tiles")
    if not all(np.isfinite(values).all() for values in (reference.embedding, *reference.readouts)):
        raise ParityError(
            "the reference itself holds values that are not finite",
            remedy="export the bundle again; its golden files are damaged",
        )
    if set(reference.heads) != set(candidate.heads):
        raise ParityError("the two sides have different heads")


def _list(shapes: Iterable[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes))


def _bias_and_slope(reference: Float, candidate: Float) -> tuple[float, float]:
    """Worst |mean difference| in standard deviations of the reference, and worst |slope - 1|, over the pathways.

    A pathway whose reference is constant has no slope; its bias is taken as it is.
    """
    centred = reference - reference.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    varies = variance > 0
    bias = np.abs((candidate - reference).mean(axis=0)) / np.sqrt(np.where(varies, variance, 1.0))
    slope = (centred * candidate).mean(axis=0) / np.where(varies, variance, 1.0)
    return float(bias.max()), float(np.where(varies, np.abs(slope - 1), 0.0).max())


def _norm_error(reference: Float, candidate: Float) -> float:
    """How far the median ratio of row lengths is from 1; rows of length 0 in the reference are left out."""
    length, other = np.linalg.norm(reference, axis=1), np.linalg.norm(candidate, axis=1)
    kept = length > 0
    return abs(float(np.median(other[kept] / length[kept])) - 1) if kept.any() else 0.0


def _scaled_max_abs(reference: ArrayLike, candidate: ArrayLike) -> float:
    a, b = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    return float(np.abs(a - b).max()) / max(1.0, float(np.abs(a).max()))


def _head_difference(a: Mapping[str, NDArray[np.float32]], b: Mapping[str, NDArray[np.float32]]) -> float | None:
    if not a:
        return None
    return _number(max(_scaled_max_abs(a[name], b[name]) for name in a))


def _ranks(values: Float) -> Float:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts - 1) / 2.0
    return np.asarray(mean_rank[inverse.reshape(-1)], np.float64)


def _number(value: float) -> float | None:
    """A finite float, or None (JSON has no NaN)."""
    return float(value) if np.isfinite(value) else None


def _least(values: Any) -> float | None:
    found = list(values)
    return None if any(value is None for value in found) else float(min(found))


def _judge(failures: list[str], name: str, value: float | None, limit: float, *, at_least: bool) -> None:
    if value is None:
        failures.append(f"{name} is not a number")
    elif (value < limit) if at_least else (value > limit):
        sign = ">=" if at_least else "<="
        failures.append(f"{name} is {value:.6g} and must be {sign} {limit:g}")


def _cell(value: float | None) -> str:
    if value is None:
        return f"{'-':>12}"
    return f"{value:>12.3g}" if abs(value) < 0.5 else f"{value:>12.7f}"
