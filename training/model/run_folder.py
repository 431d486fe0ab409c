"""A run's folder: settings in JSON, tensors in safetensors, no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stamp_deploy.atomic import write_json_atomic
from stamp_deploy.errors import UsageError
from stamp_deploy.hashing import sha256_file

from .build import build_model
from .run_info import RunInfo, read_info
from .stamp_model import StampModel, is_peft, timm_module

FROZEN_FILE = "frozen.safetensors"
"""In the folder of a run whose backbone learned itself: what those weights were before."""


def base_state(backbone: nn.Module) -> dict[str, Tensor]:
    """Weights of the backbone without its adapter, under timm's own keys."""
    state = timm_module(backbone).state_dict()
    return {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}


def save_run(
    path: Path, model: StampModel, info: RunInfo, *, weights: Path | None = None, copy_backbone: bool = True
) -> None:
    """Write run.json, the backbone, the adapter and the heads into an existing folder.

    With `copy_backbone` False and a `weights` file, backbone.json names that file and its SHA-256 instead of a copy
    (weights of billions of parameters, or licences that forbid copies). A fully tuned backbone is always written.
    """
    from safetensors.torch import save_file

    def save(tensors: dict[str, Tensor], name: str) -> None:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path / name)

    if weights is not None and not copy_backbone and info.adapt in ("lora", "frozen"):
        write_json_atomic(path / "backbone.json", {"file": str(weights.resolve()), "sha256": sha256_file(weights)})
    else:
        save(base_state(model.backbone), "backbone.safetensors")
    if is_peft(model.backbone):
        save(adapter_state(model), "adapter.safetensors")
    if model.start:
        save(model.start, FROZEN_FILE)
    save(model.head_state(), "heads.safetensors")
    write_json_atomic(path / "run.json", info.to_dict())


def adapter_state(model: StampModel) -> dict[str, Tensor]:
    """peft's own view of the adapter tensors."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model.backbone))


def load_run(path: Path | str) -> tuple[StampModel, RunInfo]:
    """Rebuild a run's model, in evaluation mode, on the CPU.

    Raises
    ------
    UsageError
        The folder is no finished run, or its backbone file is gone or altered.
    """
    from safetensors.torch import load_file

    path = Path(path)
    info = read_info(path)
    weights, sha256 = path / "backbone.safetensors", ""
    if not weights.is_file() and (path / "backbone.json").is_file():
        entry = json.loads((path / "backbone.json").read_text(encoding="utf-8"))
        weights, sha256 = Path(entry["file"]), entry["sha256"]
    model = build_model(info, weights=weights, sha256=sha256)
    if is_peft(model.backbone):
        from peft import set_peft_model_state_dict

        found: Any = set_peft_model_state_dict(model.backbone, load_file(path / "adapter.safetensors"))
        if found.unexpected_keys:
            raise UsageError(f"the adapter is of another model: {found.unexpected_keys[:3]}", path=path)
    heads = load_file(path / "heads.safetensors")
    expected = model.head_state()
    if set(heads) != set(expected) or any(heads[k].shape != expected[k].shape for k in heads):
        raise UsageError("heads.safetensors does not fit run.json", path=path, remedy="train the run again")
    model.load_state_dict(heads, strict=False)
    if (path / FROZEN_FILE).is_file():
        model.start = load_file(path / FROZEN_FILE)
    return model.eval(), info
