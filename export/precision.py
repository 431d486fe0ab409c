"""fp16, bf16 and int8: the fp32 encoder gives way to a lower one that parity has accepted, or the export stops.

int8 may also stand beside it, as twins for the engines that run them (`add_twins`).

fp16 and bf16 are judged by the same graph with every operand and result of a product rounded and the sums in fp32
(ONNX Runtime has no bf16 kernels on the CPU); each machine's own kernels are judged there, by `stamp-deploy parity`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from stamp_deploy.engine.mixed_precision import convert, convert_file, save
from stamp_deploy.engine.parity import Outputs, StageReport, compare
from stamp_deploy.errors import ParityError
from stamp_deploy.spread import spread

from .config import ExportConfig
from .parity_tiles import PARITY_TILES
from .quantise import Quantised, quantise
from .run_models import run_onnx

CALIBRATION_TILES = 300
"""SmoothQuant and the scales of activations settle at a few hundred tiles."""
OUTLIER_TILES = 64


def check_precision(precision: str, also: Collection[str] = ()) -> None:
    """Refuse what cannot be exported; see `ExportConfig`.

    Raises
    ------
    UsageError
        An unknown precision, fp8, or another than int8 beside the first.
    """
    ExportConfig.checked({"precision": precision, "also": tuple(also)})


@dataclass(frozen=True)
class Chain:
    """What every precision of one export is judged by.

    Attributes
    ----------
    pixels : uint8 [N, T, T, 3]
        All tiles, those for calibration included.
    judged : uint8 [M, T, T, 3]
        The tiles that `expected` was computed on.
    expected : Outputs
        The merged model's answers, and its heads'.
    compiled : callable
        The answers of an ONNX file in a CPU engine, and of the ONNX heads on them.
    pathways : tuple of str
    stages : list of StageReport
        Reports are appended here.
    """

    pixels: NDArray[np.uint8]
    judged: NDArray[np.uint8]
    expected: Outputs
    compiled: Callable[[Path, str], Outputs]
    pathways: tuple[str, ...]
    stages: list[StageReport] = field(default_factory=list)

    def judge(self, stage: str, precision: str, path: Path, engine: str = "onnxruntime") -> StageReport:
        """Hold an ONNX file to the merged model by the tolerance of its precision."""
        names = ("the merged model", f"its {precision} encoder in {engine}")
        found = self.compiled(path, engine)
        return compare(self.expected, found, stage=stage, names=names, precision=precision, pathways=self.pathways)

    def judge_outliers(self, stage: str, engine: str, path: Path) -> StageReport:
        """Hold an int8 file of the outlier twin to the merged model, whose function the twin has; on some tiles."""
        some = spread(len(self.judged), OUTLIER_TILES)
        shared = self.expected.pathways_global
        expected = Outputs(
            self.expected.embedding[some],
            self.expected.pathways[some],
            pathways_global=None if shared is None else shared[some],
        )
        found = run_onnx(path, self.judged[some], engine)
        if shared is None:
            found = replace(found, pathways_global=None)
        names = ("the merged model", f"its outlier twin in int8 in {engine}")
        return compare(expected, found, stage=stage, names=names, precision="int8", pathways=self.pathways)


def lower_and_add(
    precision: str, also: Collection[str], full: Path, chain: Chain, *, by_default: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The encoder in the precision asked for, and int8 twins beside it where `also` names int8; see `lower`."""
    facts, twins = add_twins(full, chain, by_default=by_default) if "int8" in also else ({}, [])
    more, same = lower(precision, full, chain)
    return {**facts, **more}, [*twins, *same]


def lower(precision: str, full: Path, chain: Chain) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Replace the fp32 encoder by one in the precision asked for.

    Returns
    -------
    dict
        What parity.json's summary says about it.
    list of dict
        Twins in the same precision, for engines that another file of it suits better.

    Raises
    ------
    ParityError
        The precision costs more than its tolerance; the message holds the numbers.
    """
    if precision == "fp32":
        return {}, []
    target = full.with_name("lower.onnx")
    twins: list[dict[str, Any]] = []
    if precision == "int8":
        made = _quantise(full, chain)
        main = made.kept.get("onnxruntime")
        if main is None or main.report is None:
            raise ParityError(
                f"int8 is refused in ONNX Runtime, which every machine falls back on: {made.verdicts}",
                remedy="export with --precision fp32 --also int8: int8 then serves the engines that it passes in",
            )
        twins = _twins(made, by_default=True, leave_out=main.way)
        chain.stages.append(main.report)
        facts = {"quantisation": main.way, **_facts(made, chain)}
        _rename_model(made.files[main.way], target)
    else:
        convert_file(full, target, precision)
        emulated = full.with_name("emulated.onnx")
        save(convert(onnx.load(full), precision, emulate=True), emulated)
        report = chain.judge(f"merged -> {precision}", precision, emulated)
        for path in full.parent.glob("emulated.onnx*"):
            path.unlink()
        chain.stages.append(report)
        report.raise_if_failed()
        facts = {"judged_as": "operands and results of every product rounded, sums in fp32"}
    for path in full.parent.glob(f"{full.name}*"):
        path.unlink()
    _rename_model(target, full)
    onnx.checker.check_model(str(full))
    return facts, twins


def add_twins(full: Path, chain: Chain, *, by_default: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write int8 encoders beside the fp32 one, for the engines in which they pass.

    Returns
    -------
    dict
        What parity.json's summary says about them.
    list of dict
        The twins, as bundle.json holds them.

    Raises
    ------
    ParityError
        No way passes in any engine.
    """
    made = _quantise(full, chain)
    reports = {one.report.stage: one.report for one in made.kept.values() if one.report is not None}
    chain.stages.extend(reports.values())
    return {"twins": _facts(made, chain)}, _twins(made, by_default=by_default)


def _quantise(full: Path, chain: Chain) -> Quantised:
    calibration = chain.pixels[calibrates(len(chain.pixels))]
    return quantise(
        full,
        full.parent,
        calibration,
        lambda stage, engine, path: chain.judge(stage, "int8", path, engine),
        chain.judge_outliers,
    )


def _facts(made: Quantised, chain: Chain) -> dict[str, Any]:
    return {"calibration_tiles": int(calibrates(len(chain.pixels)).sum()), "ways": made.verdicts}


def _twins(made: Quantised, *, by_default: bool, leave_out: str = "") -> list[dict[str, Any]]:
    """One entry per way that is kept, with its engines; files that nobody uses are removed."""
    entries = []
    for way, path in sorted(made.files.items()):
        kept = {engine: one for engine, one in made.kept.items() if one.way == way}
        if way == leave_out:
            continue
        entries.append(
            {
                "file": path.name,
                "precision": "int8",
                "engines": list(kept),
                "by_default": by_default,
                "way": way,
                "parity": {
                    "spearman_min": _least("spearman_min", [one.report for one in kept.values()]),
                    "cosine_min": _least("cosine_min", [one.report for one in kept.values()]),
                    "outlier_spearman_min": _least("spearman_min", [one.outliers for one in kept.values()]),
                    "tiles_per_second": {one.engine: round(one.tiles_per_second, 2) for one in kept.values()},
                },
            }
        )
    return entries


def _least(metric: str, reports: list[StageReport | None]) -> float | None:
    """The least over some engines; None where it was judged in none."""
    found = [report.metrics[metric] for report in reports if report is not None]
    return min((value for value in found if value is not None), default=None)


def _rename_model(source: Path, target: Path) -> None:
    """Move an ONNX file and the data beside it, whose name stands in every tensor."""
    data = source.with_name(source.name + ".data")
    if data.is_file():
        model = onnx.load(source, load_external_data=False)
        for tensor in model.graph.initializer:
            for item in tensor.external_data:
                if item.key == "location":
                    item.value = target.name + ".data"
        source.write_bytes(model.SerializeToString())
        data.rename(target.with_name(target.name + ".data"))
    source.rename(target)


def calibrates(count: int) -> NDArray[np.bool_]:
    """Which of `count` tiles int8 is calibrated on, and so not judged on: 3 in 8, 300 at most, evenly spread."""
    mask = np.zeros(count, bool)
    mask[spread(count, min(CALIBRATION_TILES, count * 3 // 8))] = True
    return mask


def wanted_tiles(precisions: Collection[str]) -> int:
    """How many tiles an export asks for: `PARITY_TILES` to be judged on, and for int8 some more to calibrate on."""
    return PARITY_TILES + (CALIBRATION_TILES if "int8" in precisions else 0)


def judged_tiles(pixels: NDArray[np.uint8], precisions: Collection[str]) -> NDArray[np.uint8]:
    """The tiles that parity is judged on: all, but for those that int8 was calibrated on."""
    return pixels[~calibrates(len(pixels))] if "int8" in precisions else pixels
