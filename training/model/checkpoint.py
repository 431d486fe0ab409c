"""Checkpoints that a killed run resumes from, bit for bit: a safetensors file per stage, replaced whole, no pickle.

A file holds the trainable tensors, the optimiser's moments and torch's random state; its header holds the position,
as JSON. Frozen tensors are not in it: they come from the weights file, or from `base.safetensors` beside it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stamp_deploy.errors import UsageError

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Checkpoint:
    """The checkpoint folder of a run.

    Parameters
    ----------
    folder : Path
    key : str
        Digest of everything that the position depends on; a checkpoint of another key is refused.
    minutes : float
        Least time between two saves of `save_if_due`; 0 saves each time.
    enabled : bool
        False for all but the first process: they read and never write.
    """

    def __init__(self, folder: Path, key: str, minutes: float, *, enabled: bool = True) -> None:
        self.folder, self.key, self.seconds, self.enabled = folder, key, minutes * 60, enabled
        self._last = time.monotonic()

    def path(self, stage: str) -> Path:
        """Where a stage's file lies."""
        return self.folder / f"{stage}.safetensors"

    def due(self) -> bool:
        """Whether the last save was long enough ago."""
        return self.enabled and time.monotonic() - self._last >= self.seconds

    def save_if_due(
        self, stage: str, module: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]
    ) -> bool:
        """Save where the last save was long enough ago; True if it did."""
        if not self.due():
            return False
        self.save(stage, module, optimiser, state)
        return True

    def save(self, stage: str, module: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Write the file of a stage; a kill at any time leaves the old or the new one."""
        if not self.enabled:
            return
        tensors = {f"model/{k}": v for k, v in _trainable(module).items()}
        for i, parameter in enumerate(_parameters(optimiser)):
            moments = optimiser.state.get(parameter, {})
            tensors |= {f"optimiser/{i}/{k}": moments[k] for k in MOMENTS if k in moments}
        tensors["random/cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random/cuda"] = torch.cuda.get_rng_state()
        write_tensors(self.path(stage), tensors, {"key": self.key, "state": json.dumps(state)})
        self._last = time.monotonic()

    def load(self, stage: str, module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Put a stage back to where it was saved; None where there is nothing to go on from.

        Raises
        ------
        UsageError
            The checkpoint is of other settings or another model.
        """
        path = self.path(stage)
        if not path.is_file():
            return None
        tensors, header = read_tensors(path)
        own = _trainable(module)
        saved = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
        if header.get("key") != self.key or _shapes(own) != _shapes(saved):
            raise UsageError(
                "the folder holds an unfinished run of other settings",
                path=self.folder.parent,
                remedy="name another folder, or start over with --overwrite",
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(saved[name])
        for i, parameter in enumerate(_parameters(optimiser)):
            moments = {k: tensors[f"optimiser/{i}/{k}"] for k in MOMENTS if f"optimiser/{i}/{k}" in tensors}
            if moments:
                optimiser.state[parameter] = {
                    k: v if k == "step" else v.to(parameter.device) for k, v in moments.items()
                }
        torch.set_rng_state(tensors["random/cpu"])
        if torch.cuda.is_available() and "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"])
        found: dict[str, Any] = json.loads(header["state"])
        return found


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None) -> None:
    """Write a safetensors file so that the name only ever holds a whole one."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial, metadata=header)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in tensors.items()}


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    """Parameters that learn, and all buffers (running statistics)."""
    learning = {k: p for k, p in module.named_parameters() if p.requires_grad}
    return {**learning, **dict(module.named_buffers())}
