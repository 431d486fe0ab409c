"""Engines: the compiled encoder on whatever device. `load_engine` is the only door.

This package knows tensors and bundles, never slides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import EngineError
from .base import Engine, EngineInfo, EngineOutput

if TYPE_CHECKING:
    from ..bundle import Bundle

__all__ = ["ENGINES", "Engine", "EngineInfo", "EngineOutput", "load_engine"]

ENGINES = ("onnxruntime",)


def load_engine(
    bundle: Bundle, name: str = "auto", *, batch: int, threads: int = 0, precision: str | None = None
) -> Engine:
    """Load a bundle's encoder.

    Parameters
    ----------
    bundle : Bundle
        A verified bundle.
    name : str
        One of `ENGINES`, or ``auto``.
    batch : int
        The largest number of tiles that will be handed over at once.
    threads : int
        CPU threads; 0 means one a core.
    precision : str, optional
        The engine's own choice where not given.

    Raises
    ------
    EngineError
        The engine is unknown or cannot be used on this machine.
    """
    if batch < 1:
        raise EngineError(f"a batch of {batch} tiles is not possible", remedy="use --batch 1 or more")
    if name == "auto":
        from .onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(
            bundle, batch=batch, threads=threads, precision=precision, why="the default engine"
        )
    if name == "onnxruntime":
        from .onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, batch=batch, threads=threads, precision=precision, why="asked for")
    raise EngineError(f"there is no engine {name!r}", remedy=f"use auto or one of {', '.join(ENGINES)}")
