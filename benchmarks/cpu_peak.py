"""What these cores can multiply: one large fp32 product, by each library at hand.

One library is not enough: MKL, which torch uses, runs AVX2 on AMD processors that have AVX-512, and reaches half of
what ONNX Runtime reaches there.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from onnx import TensorProto, checker, helper

SIDE = 2048


class CpuPeak:
    """Times the products, round by round, beside whatever else is timed."""

    def __init__(self) -> None:
        self._products = {"torch": torch_product(), "ONNX Runtime": onnxruntime_product()}
        self._seconds: dict[str, list[float]] = {name: [] for name in self._products}

    def time_once(self) -> None:
        """Time each product once, after one that wakes the threads."""
        for name, product in self._products.items():
            product()
            clock = time.perf_counter()
            product()
            self._seconds[name].append(time.perf_counter() - clock)

    def fastest(self) -> tuple[str, float]:
        """The library whose median is best, and its GFLOP/s."""
        medians = {name: float(np.median(seconds)) for name, seconds in self._seconds.items()}
        name = min(medians, key=lambda name: medians[name])
        return name, 2 * SIDE**3 / medians[name] / 1e9


def torch_product() -> Callable[[], object]:
    """In torch, into a buffer that is there, with torch's own number of threads."""
    a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def onnxruntime_product() -> Callable[[], object]:
    """In ONNX Runtime, with one thread per core."""
    import onnxruntime  # after stamp_deploy, which silences it

    square = [SIDE, SIDE]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, square) for name in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, square)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    operands = {name: rng.random(square, np.float32) for name in "ab"}
    return lambda: session.run(None, operands)
