"""fp16, bf16 and int8: the fp32 encoder gives way to a lower one that parity has accepted, or the export stops.

fp16 and bf16 are judged by the same graph with every operand and result of a product rounded and the sums in fp32
(ONNX Runtime has no bf16 kernels on the CPU); each machine's own kernels are judged there, by `stamp-deploy parity`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from stamp_deploy.engine.mixed_precision import convert, convert_file, save
from stamp_deploy.engine.parity import Outputs, StageReport, compare
from stamp_deploy.errors import UsageError

from .parity_tiles import PARITY_TILES
from .quantise import CALIBRATION_TILES, quantise

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def check_precision(precision: str) -> None:
    """Refuse what cannot be exported.

    Raises
    ------
    UsageError
        An unknown precision, or fp8.
    """
    if precision not in PRECISIONS:
        unchecked = ": ONNX Runtime has no fp8 kernels on the CPU to check it with"
        reason = unchecked if precision == "fp8" else ""
        raise UsageError(
            f"export in {precision} is not possible{reason}", remedy="use --precision " + ", ".join(PRECISIONS)
        )


def lower(
    precision: str,
    full: Path,
    pixels: NDArray[np.uint8],
    expected: Outputs,
    compiled: Callable[[Path], Outputs],
    stages: list[StageReport],
    pathways: tuple[str, ...],
) -> dict[str, Any]:
    """Replace the fp32 encoder by one in the precision asked for; returns what parity.json's summary says of it.

    Raises
    ------
    ParityError
        The precision costs more than its tolerance; the message holds the numbers.
    """
    if precision == "fp32":
        return {}
    target = full.with_name("lower.onnx")
    names = ("the merged model", f"its {precision} encoder")

    def judge(stage: str, path: Path) -> StageReport:
        return compare(expected, compiled(path), stage=stage, names=names, precision=precision, pathways=pathways)

    if precision == "int8":
        calibration = pixels[calibrates(len(pixels))]
        kept = quantise(full, target, calibration, lambda way, path: judge(f"merged -> int8 {way}", path))
        stages.append(kept.report)
        facts: dict[str, Any] = {
            "quantisation": kept.way,
            "calibration_tiles": len(calibration),
            "ways": kept.verdicts,
        }
    else:
        convert_file(full, target, precision)
        emulated = full.with_name("emulated.onnx")
        save(convert(onnx.load(full), precision, emulate=True), emulated)
        report = judge(f"merged -> {precision}", emulated)
        for path in full.parent.glob("emulated.onnx*"):
            path.unlink()
        stages.append(report)
        report.raise_if_failed()
        facts = {"judged_as": "operands and results of every product rounded, sums in fp32"}
    for path in full.parent.glob(f"{full.name}*"):
        path.unlink()
    _rename_model(target, full)
    onnx.checker.check_model(str(full))
    return facts


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
    """Which of `count` tiles int8 is calibrated on, and so not judged on: every eighth, 64 at most."""
    mask = np.zeros(count, bool)
    mask[::8][:CALIBRATION_TILES] = True
    return mask


def wanted_tiles(precision: str) -> int:
    """How many tiles an export asks for: `PARITY_TILES` to be judged on, and for int8 some more to calibrate on."""
    return PARITY_TILES + (CALIBRATION_TILES if precision == "int8" else 0)


def judged_tiles(pixels: NDArray[np.uint8], precision: str) -> NDArray[np.uint8]:
    """The tiles that parity is judged on: all, but for those that int8 was calibrated on."""
    return pixels[~calibrates(len(pixels))] if precision == "int8" else pixels
