"""int8 after training: three ways to quantise an encoder, each judged on tissue, and the fastest kept per engine.

| way | made by | activations | for |
|---|---|---|---|
| dynamic | ONNX Runtime | scaled per batch at run time | ONNX Runtime |
| static | ONNX Runtime | scaled once, asymmetric | ONNX Runtime, OpenVINO |
| smooth | NNCF, SmoothQuant (Xiao et al. 2023) | scaled once, symmetric | all, TensorRT included |

A way must keep the order of tiles by pathway twice: with the model's own weights, and with those of its outlier twin
(outliers.py). Only products with weights are quantised by ONNX Runtime's ways; NNCF also takes the products of
attention. ONNX Runtime's weights use 7 bits, because kernels for processors without VNNI add two 8-bit products in 16
bits and saturate. Every machine judges its own kernels once more on the golden tiles before it scores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from stamp_deploy.engine.parity import StageReport
from stamp_deploy.errors import ParityError, StampError

from .outliers import outlier_twin
from .quantise_ways import WAYS, Way, weights_lie_outside
from .run_models import open_model

CPU_ENGINES = ("onnxruntime", "openvino")
SPEED_BATCH = 16
SPEED_ROUNDS = 3
Judge = Callable[[str, str, Path], StageReport]
"""Runs parity tiles; called with a name for the stage, the engine and the file."""


@dataclass(frozen=True)
class Candidate:
    """One way on one engine.

    Attributes
    ----------
    report : StageReport or None
        Its parity; None where the file cannot be made.
    outliers : StageReport or None
        Parity of the outlier twin; None where it was not judged.
    tiles_per_second : float
        0 where it is refused.
    refused : str
        Why it is out; empty where it is not.
    """

    way: str
    engine: str
    report: StageReport | None
    outliers: StageReport | None = None
    tiles_per_second: float = 0.0
    refused: str = ""


@dataclass(frozen=True)
class Quantised:
    """What was tried, the way kept for each engine, and the files of the ways that are used."""

    candidates: tuple[Candidate, ...]
    kept: dict[str, Candidate] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def verdicts(self) -> dict[str, str]:
        """Every candidate in words, for the record."""
        return {f"{found.way} in {found.engine}": _words(found) for found in self.candidates}


def quantise(
    encoder: Path, folder: Path, calibration: NDArray[np.uint8], judge: Judge, judge_outliers: Judge
) -> Quantised:
    """Write int8 encoders into `folder`, one per way that some engine keeps.

    Parameters
    ----------
    encoder, folder : Path
        The fp32 ONNX file, and where ``encoder.int8-WAY.onnx`` go.
    calibration : uint8 [N, T, T, 3]
        Tiles that are not among those that the judges use.
    judge, judge_outliers : callable
        Parity of a file of the model, and of a file of its outlier twin; the latter may use fewer tiles.

    Raises
    ------
    ParityError
        No way keeps the order of tiles by pathway; the message holds each way's numbers.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".int8-") as scratch:
        twin = _write_outlier_twin(encoder, Path(scratch, "twin.onnx"))
        found: list[Candidate] = []
        made: dict[str, Path] = {}
        for way in WAYS:
            target = Path(scratch, way.name, f"encoder.int8-{way.name}.onnx")
            try:
                found += _try(way, encoder, twin, target, calibration, judge, judge_outliers)
                made[way.name] = target
            except (StampError, RuntimeError, ValueError, ImportError) as error:
                found.append(Candidate(way.name, way.engines[0], None, refused=f"cannot be made: {str(error)[:200]}"))
        passed = [candidate for candidate in found if not candidate.refused]
        if not passed:
            raise ParityError(
                "int8 is refused: " + "; ".join(f"{one.way} in {one.engine}: {_words(one)}" for one in found),
                remedy="export with --precision fp16 or fp32"
                + ("" if find_spec("nncf") else ", or install NNCF: pip install 'stamp-deploy[int8]'"),
            )
        kept = _fastest(passed)
        files = {}
        for name in {candidate.way for candidate in kept.values()}:
            for path in made[name].parent.iterdir():
                path.rename(folder / path.name)
            files[name] = folder / made[name].name
    return Quantised(tuple(found), kept, files)


def _try(
    way: Way,
    encoder: Path,
    twin: Path | None,
    target: Path,
    calibration: NDArray[np.uint8],
    judge: Judge,
    judge_outliers: Judge,
) -> list[Candidate]:
    """Quantise one way, and judge it in every CPU engine that it is for and that is installed."""
    target.parent.mkdir()
    way.make(encoder, target, calibration)
    spoilt = target.with_name("outliers.onnx")
    if twin is not None:
        way.make(twin, spoilt, calibration)
    found = []
    for engine in (name for name in CPU_ENGINES if name in way.engines and find_spec(name)):
        report = judge(f"merged -> int8 {way.name} in {engine}", engine, target)
        strained = None
        refused = "" if report else "; ".join(report.failures)
        if not refused and twin is not None:
            strained = judge_outliers(f"outlier twin -> int8 {way.name} in {engine}", engine, spoilt)
            refused = "" if strained else f"with outlier channels {'; '.join(strained.failures)}"
        speed = 0.0 if refused else _speed(engine, target, calibration)
        found.append(Candidate(way.name, engine, report, strained, speed, refused))
    for path in target.parent.glob("outliers.onnx*"):
        path.unlink()
    return found


def _write_outlier_twin(encoder: Path, target: Path) -> Path | None:
    """The outlier twin as a file; None where the graph has no place for outliers, or is too large for one file."""
    model = onnx.load(encoder, load_external_data=False)
    if weights_lie_outside(model):
        return None
    try:
        onnx.save(outlier_twin(model), target)
    except ValueError:
        return None
    return target


def _fastest(passed: list[Candidate]) -> dict[str, Candidate]:
    """The fastest candidate per engine; engines that cannot be tried here get the way that was made for them."""
    kept: dict[str, Candidate] = {}
    for candidate in passed:
        best = kept.get(candidate.engine)
        if best is None or candidate.tiles_per_second > best.tiles_per_second:
            kept[candidate.engine] = candidate
    for way in WAYS:
        of_way = [candidate for candidate in passed if candidate.way == way.name]
        for engine in way.engines if of_way else ():
            if engine not in CPU_ENGINES or find_spec(engine) is None:
                kept[engine] = of_way[0]
    return kept


def _speed(engine: str, path: Path, tiles: NDArray[np.uint8]) -> float:
    """Tiles/s, the best of some batches after one that is not timed."""
    run = open_model(engine, path)
    batch = tiles[:SPEED_BATCH]
    run(batch)
    seconds = []
    for _ in range(SPEED_ROUNDS):
        start = time.perf_counter()
        run(batch)
        seconds.append(time.perf_counter() - start)
    return len(batch) / min(seconds)


def _words(candidate: Candidate) -> str:
    verdict = f"refused, {candidate.refused}" if candidate.refused else "accepted"
    if candidate.report is None:
        return verdict
    numbers = ", ".join(
        f"{name} {value:.4f}"
        for name in ("spearman_min", "pearson_min", "cosine_min")
        if (value := candidate.report.metrics[name]) is not None
    )
    if candidate.outliers is not None and (least := candidate.outliers.metrics["spearman_min"]) is not None:
        numbers += f", with outlier channels spearman_min {least:.4f}"
    return f"{verdict} ({numbers})"
