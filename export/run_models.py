"""The two sides of the comparison: a module in torch, a file in ONNX Runtime, over the same tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stamp_deploy.engine.interface import OUTPUTS
from stamp_deploy.engine.parity import Outputs

BATCH = 16


@torch.no_grad()
def run_torch(module: nn.Module, tiles: NDArray[np.uint8]) -> Outputs:
    """The torch side, in fp32, batch by batch."""
    module = module.eval()
    parts = [module(torch.from_numpy(tiles[i : i + BATCH])) for i in range(0, len(tiles), BATCH)]
    return _outputs([torch.cat(side).numpy() for side in zip(*parts, strict=True)])


@torch.no_grad()
def run_torch_head(head: nn.Module, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """A head's logits [C] in torch."""
    logits, _ = head.eval()(torch.from_numpy(embedding))
    return np.asarray(logits.float().reshape(-1).numpy())


def run_onnx(path: Path, tiles: NDArray[np.uint8], engine: str = "onnxruntime") -> Outputs:
    """The ONNX side, in a CPU engine."""
    run = open_model(engine, path)
    parts = [run(tiles[i : i + BATCH]) for i in range(0, len(tiles), BATCH)]
    return _outputs([np.concatenate(side) for side in zip(*parts, strict=True)])


def _outputs(arrays: list[NDArray[np.float32]]) -> Outputs:
    """Arrays in the order of `OUTPUTS`; the last may be missing."""
    return Outputs(arrays[0], arrays[1], pathways_global=arrays[2] if len(arrays) > 2 else None)


def run_onnx_head(path: Path, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """A head's logits [C] in ONNX Runtime."""
    return np.asarray(open_cpu(path).run(["logits"], {"embeddings": embedding})[0])


def open_cpu(path: Path) -> Any:
    """An ONNX Runtime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_model(engine: str, path: Path) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """An encoder's file in a CPU engine: a function of tiles uint8 [N, T, T, 3] that gives the arrays of `OUTPUTS`."""
    if engine == "openvino":
        import openvino

        compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        request = compiled.create_infer_request()
        ports = {port.get_any_name(): port for port in compiled.outputs}
        found = [ports[name] for name in OUTPUTS if name in ports]

        def run(tiles: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
            answers = request.infer({"tiles": tiles})
            return [np.array(answers[port], np.float32) for port in found]

        return run
    session = open_cpu(path)
    have = {output.name for output in session.get_outputs()}
    names = [name for name in OUTPUTS if name in have]
    return lambda tiles: list(session.run(names, {"tiles": tiles}))
