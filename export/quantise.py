"""int8 after training: ONNX Runtime's quantiser, calibrated on real tissue tiles, and judged on others.

Two ways are tried: ``dynamic`` (weights int8, activations scaled tile by tile at run time) and ``static`` (activations
scaled once, from the calibration tiles). Only the products with weights are quantised: attention between activations,
LayerNorm, Softmax, the patch embedding and the pathway head stay in fp32. Weights use 7 bits, because kernels for
processors without VNNI add two 8-bit products in 16 bits and saturate.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from stamp_deploy.engine.parity import StageReport
from stamp_deploy.errors import ParityError

WAYS = ("dynamic", "static")
CALIBRATION_TILES = 64
CALIBRATION_BATCH = 8
Judge = Callable[[str, Path], StageReport]
"""Runs a candidate's parity tiles; called with the way's name and the file."""


@dataclass(frozen=True)
class Quantised:
    """The way that was kept, its parity, tiles/s of each way that passed, and every verdict."""

    way: str
    report: StageReport
    speed: dict[str, float]
    verdicts: dict[str, str]


def quantise(encoder: Path, target: Path, calibration: NDArray[np.uint8], judge: Judge) -> Quantised:
    """Write the fastest int8 encoder that passes.

    Parameters
    ----------
    encoder, target : Path
        The fp32 ONNX file, and where the int8 one goes.
    calibration : uint8 [N, T, T, 3]
        Tiles that are not among those that `judge` uses.

    Raises
    ------
    ParityError
        No way keeps the order of tiles by pathway; the message holds each way's numbers.
    """
    reports: dict[str, StageReport] = {}
    speed: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".int8-") as folder:
        files = {way: Path(folder, way, target.name) for way in WAYS}
        for way, path in files.items():
            path.parent.mkdir()
            _quantise(way, encoder, path, calibration)
            reports[way] = judge(way, path)
            if reports[way]:
                speed[way] = _speed(path, calibration)
        verdicts = {way: _verdict(report) for way, report in reports.items()}
        if not speed:
            raise ParityError(
                "int8 is refused: " + "; ".join(f"{way}: {verdict}" for way, verdict in verdicts.items()),
                remedy="export with --precision fp16 or fp32",
            )
        way = max(speed, key=speed.__getitem__)
        for path in files[way].parent.iterdir():
            shutil.move(path, target.parent / path.name)
    return Quantised(way, reports[way], speed, verdicts)


def _quantise(way: str, encoder: Path, target: Path, calibration: NDArray[np.uint8]) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    model = onnx.load(encoder, load_external_data=False)
    common: dict[str, Any] = {
        "op_types_to_quantize": ["MatMul"],
        "per_channel": True,
        "reduce_range": True,
        "weight_type": QuantType.QInt8,
        "use_external_data_format": any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer),
        "extra_options": {"MatMulConstBOnly": True},
    }
    quiet = logging.getLogger()
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # the quantiser recommends a preprocessing step that export has done already
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if way == "dynamic":
                quantize_dynamic(encoder, target, **common)
            else:
                quantize_static(
                    encoder,
                    target,
                    Reader(calibration),
                    quant_format=QuantFormat.QDQ,
                    activation_type=QuantType.QUInt8,
                    **common,
                )
    finally:
        quiet.setLevel(level)


class Reader:
    """Calibration tiles, a few at a time, in the form that the quantiser wants."""

    def __init__(self, tiles: NDArray[np.uint8]) -> None:
        self._batches = iter(tiles[i : i + CALIBRATION_BATCH] for i in range(0, len(tiles), CALIBRATION_BATCH))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch, or None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"tiles": batch}

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> dict[str, NDArray[np.uint8]]:
        batch = self.get_next()
        if batch is None:
            raise StopIteration
        return batch


def _speed(path: Path, tiles: NDArray[np.uint8]) -> float:
    """Tiles/s, the best of three batches."""
    from .run_models import open_cpu

    session = open_cpu(path)
    batch = tiles[:16]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        session.run(None, {"tiles": batch})
        seconds.append(time.perf_counter() - start)
    return len(batch) / min(seconds)


def _verdict(report: StageReport) -> str:
    numbers = ", ".join(
        f"{name} {value:.4f}"
        for name in ("spearman_min", "pearson_min", "cosine_min")
        if (value := report.metrics[name]) is not None
    )
    return f"accepted ({numbers})" if report else f"refused, {'; '.join(report.failures)} ({numbers})"
