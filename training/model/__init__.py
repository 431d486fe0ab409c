"""The model that is trained: a foundation model, its adapter and the pathway heads. torch is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import add_lora, build_model, measured_dim, merge_lora
    from .run_folder import FROZEN_FILE, base_state, load_run, save_run
    from .run_info import LoraSettings, RunInfo, read_info
    from .stamp_model import StampModel, is_peft

_HOMES = {
    "build": (
        "add_lora",
        "build_model",
        "measured_dim",
        "merge_lora",
    ),
    "run_folder": (
        "FROZEN_FILE",
        "base_state",
        "load_run",
        "save_run",
    ),
    "run_info": (
        "LoraSettings",
        "RunInfo",
        "read_info",
    ),
    "stamp_model": (
        "StampModel",
        "is_peft",
    ),
}

__all__ = [
    "FROZEN_FILE",
    "LoraSettings",
    "RunInfo",
    "StampModel",
    "add_lora",
    "base_state",
    "build_model",
    "is_peft",
    "load_run",
    "measured_dim",
    "merge_lora",
    "read_info",
    "save_run",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(name)
