"""The model that is trained: a foundation model, its adapter and the pathway heads. torch is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .stamp_model import (
        FROZEN_FILE,
        LoraSettings,
        RunInfo,
        StampModel,
        add_lora,
        base_state,
        build_model,
        is_peft,
        load_run,
        measured_dim,
        merge_lora,
        read_info,
        save_run,
    )

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
    if name in __all__:
        return getattr(import_module(f"{__name__}.stamp_model"), name)
    raise AttributeError(name)
