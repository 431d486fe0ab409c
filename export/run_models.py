"""The two sides of the comparison: a module in torch, a file in ONNX Runtime, over the same tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stamp_deploy.engine.parity import Outputs

BATCH = 16
OUTPUTS = ("embedding", "pathways")


@torch.no_grad()
def run_torch(module: nn.Module, tiles: NDArray[np.uint8]) -> Outputs:
    """The torch side, in fp32, batch by batch."""
    module = module.eval()
    parts = [module(torch.from_numpy(tiles[i : i + BATCH])) for i in range(0, len(tiles), BATCH)]
    embedding, pathways = (torch.cat([part[side] for part in parts]).numpy() for side in (0, 1))
    return Outputs(embedding, pathways)


@torch.no_grad()
def run_torch_head(head: nn.Module, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """A head's logits [C] in torch."""
    logits, _ = head.eval()(torch.from_numpy(embedding))
    return np.asarray(logits.float().reshape(-1).numpy())


def run_onnx(path: Path, tiles: NDArray[np.uint8]) -> Outputs:
    """The ONNX side, in ONNX Runtime on the CPU."""
    session = open_cpu(path)
    parts = [session.run(OUTPUTS, {"tiles": tiles[i : i + BATCH]}) for i in range(0, len(tiles), BATCH)]
    embedding, pathways = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return Outputs(embedding, pathways)


def run_onnx_head(path: Path, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """A head's logits [C] in ONNX Runtime."""
    return np.asarray(open_cpu(path).run(["logits"], {"embeddings": embedding})[0])


def open_cpu(path: Path) -> Any:
    """An ONNX Runtime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
