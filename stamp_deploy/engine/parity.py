"""Parity: does a candidate say what its reference says, tile by tile?

One module compares every pair along the chain: torch with the adapter apart -> merged -> ONNX -> each engine
and precision. A report is true when it passed, counts NaN as a failure, and prints the smallest tolerance that
would have passed. docs/parity.md explains the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ParityError
from .agreement import bias_and_slope, norm_error, pearson, row_cosine, scaled_max_abs, spearman
from .tolerances import TOLERANCES, Tolerance, correlation_floor


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
    metrics["max_abs"] = _number(scaled_max_abs(ref, can))
    metrics["norm_max"] = _number(norm_error(ref, can))
    metrics["pathway_max_abs"] = _number(
        max(scaled_max_abs(a, b) for a, b in zip(reference.readouts, candidate.readouts, strict=True))
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
    shifts = [bias_and_slope(ref[rows], can[rows]) for rows in passes]
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


def to_table(stages: list[StageReport]) -> str:
    """A readable table, one row per stage, with the failures below."""
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
        found, wanted = (" and ".join(map(str, side)) for side in reversed(shapes))
        raise ParityError(f"pathway scores are {found}, not {wanted}")
    if len(reference.embedding) < 2:
        raise ParityError("parity needs at least two tiles")
    if not all(np.isfinite(values).all() for values in (reference.embedding, *reference.readouts)):
        raise ParityError(
            "the reference itself holds values that are not finite",
            remedy="export the bundle again; its golden files are damaged",
        )
    if set(reference.heads) != set(candidate.heads):
        raise ParityError("the two sides have different heads")


def _head_difference(a: Mapping[str, NDArray[np.float32]], b: Mapping[str, NDArray[np.float32]]) -> float | None:
    if not a:
        return None
    return _number(max(scaled_max_abs(a[name], b[name]) for name in a))


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
