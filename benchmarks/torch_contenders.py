"""torch as a fair rival on a GPU: `.half()`, scaled_dot_product_attention, CUDA graphs, the engines' copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

IN_FLIGHT = 2
"""Batches under way at once, as with our engines."""


class Measured(NamedTuple):
    """A speed, over how many seconds it was measured, and whether it was to be measured for longer."""

    tiles_per_second: float
    seconds: float
    cut: bool


class HalfEncoder(nn.Module):
    """uint8 tiles [N, T, T, 3] -> the model's outputs in float32; normalised in float32, everything else in float16."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model.half()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        pixels = tiles.to(torch.float32).permute(0, 3, 1, 2)
        embedding, pathways = self.model(((pixels / 255 - self.mean) / self.std).half())
        return embedding.float(), pathways.float()


class TorchContender:
    """A module with buffers of one batch size: page-locked on the host, fixed on the device, recorded where it can be.

    Parameters
    ----------
    run : callable
        The module, or what torch.compile made of it.
    tiles : uint8 [N, T, T, 3]
        One full batch.
    device : str
        "cuda"; "cpu" for a dry run, without page-locking and graphs.
    """

    def __init__(self, run: Callable[..., Any], tiles: NDArray[np.uint8], device: str) -> None:
        self.on_gpu = device == "cuda"
        host = torch.from_numpy(tiles)
        self.host = host.pin_memory() if self.on_gpu else host
        self.tiles = torch.empty_like(self.host, device=device)
        self.graph: Any = None
        with torch.inference_mode():
            self.tiles.copy_(self.host)
            for _ in range(3):
                found = run(self.tiles)
            if self.on_gpu:
                torch.cuda.synchronize()
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph):
                    found = run(self.tiles)
        self.run, self.found = run, found
        self.answers = [[self._like(one) for one in found] for _ in range(IN_FLIGHT)]
        self.done = [torch.cuda.Event() for _ in range(IN_FLIGHT)] if self.on_gpu else []

    def _like(self, one: Tensor) -> Tensor:
        return torch.empty(one.shape, dtype=one.dtype, pin_memory=self.on_gpu)

    def speed(self, seconds: float, until: float = float("inf")) -> Measured:
        """Tiles/s over about so many seconds: copied in, computed, copied out, two batches under way.

        Nothing is begun after `until` (time.perf_counter()), but for the first batch.
        """
        count, step, start = 0, 0, time.perf_counter()
        stop = min(start + seconds, until)
        with torch.inference_mode():
            while step == 0 or time.perf_counter() < stop:
                slot = step % IN_FLIGHT
                if self.on_gpu and step >= IN_FLIGHT:
                    self.done[slot].synchronize()
                self.tiles.copy_(self.host, non_blocking=True)
                if self.graph is not None:
                    self.graph.replay()
                else:
                    self.found = self.run(self.tiles)
                for answer, one in zip(self.answers[slot], self.found, strict=True):
                    answer.copy_(one, non_blocking=True)
                if self.on_gpu:
                    self.done[slot].record()
                count, step = count + len(self.host), step + 1
            if self.on_gpu:
                torch.cuda.synchronize()
        taken = time.perf_counter() - start
        return Measured(count / taken, taken, until < start + seconds)


def cosine_min(run: Callable[..., Any], tiles: NDArray[np.uint8], golden: NDArray[np.float32], device: str) -> float:
    """The least cosine of a module's embeddings with those of float32: whether it would pass our gate."""
    with torch.inference_mode():
        found = run(torch.from_numpy(tiles.copy()).to(device))[0].cpu().double().numpy()
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(golden, axis=1)
    return float(((found * golden).sum(1) / norms).min())


def sustained_peak(device: str, dtype: torch.dtype, side: int, seconds: float) -> float:
    """FLOP/s of large matrix products one after the other, over the second half of so many seconds.

    A card that runs at its limit lowers its clock after a while: the best single product is no speed that a slide sees.
    """
    a = torch.randn(side, side, device=device).to(dtype)
    b, out = torch.randn_like(a), torch.empty_like(a)

    def products(limit: float) -> float:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < limit:
            for _ in range(4):
                torch.matmul(a, b, out=out)
            if device == "cuda":
                torch.cuda.synchronize()
            count += 4
        return 2 * side**3 * count / (time.perf_counter() - start)

    products(seconds / 2)
    return products(seconds / 2)
