"""Engines: the compiled encoder on whatever device. `load_engine` is the only door.

This package knows tensors and bundles, never slides. docs/engine.md compares the engines.
"""

from .interface import Engine, EngineInfo, EngineOutput
from .load import load_engine, swap_adapter
from .registry import ENGINES, open_engine

__all__ = ["ENGINES", "Engine", "EngineInfo", "EngineOutput", "load_engine", "open_engine", "swap_adapter"]
