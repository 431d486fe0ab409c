"""Engines: the compiled encoder on whatever device. `load_engine` is the only door.

This package knows tensors and bundles, never slides. docs/engine.md compares the engines.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .. import log
from ..errors import EngineError
from .base import BatchedEngine, Engine, EngineInfo, EngineOutput

if TYPE_CHECKING:
    from ..bundle import Bundle

__all__ = ["ENGINES", "Engine", "EngineInfo", "EngineOutput", "load_engine", "open_engine"]

ENGINES = ("onnxruntime", "openvino", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx")


def load_engine(
    bundle: Bundle,
    name: str = "auto",
    *,
    batch: int,
    threads: int = 0,
    precision: str | None = None,
    device: int = 0,
) -> Engine:
    """Load a bundle's encoder, accepted by parity where this machine compiled it.

    Parameters
    ----------
    bundle : Bundle
        A verified bundle.
    name : str
        One of `ENGINES`, or ``auto``: the fastest that passes parity on this machine.
    batch : int
        The largest number of tiles that will be handed over at once.
    threads : int
        CPU threads; 0 means one a core.
    precision : str, optional
        The engine's own choice where not given.
    device : int
        Index of the GPU, for engines that use one. Several GPUs: one engine each, in processes or threads of their own.

    Raises
    ------
    EngineError
        The engine is unknown or cannot be used on this machine.
    ParityError
        ``auto``: no engine reproduces the golden outputs.
    """
    if name == "auto":
        from .auto import choose

        _check_batch(batch)
        return choose(bundle, batch=batch, threads=threads, precision=precision, device=device)
    engine = open_engine(bundle, name, batch=batch, threads=threads, precision=precision, device=device)
    engine.explain("asked for")
    return engine if engine.accepted else _accept_or_replace(bundle, engine, batch, threads)


def open_engine(
    bundle: Bundle,
    name: str,
    *,
    batch: int,
    threads: int = 0,
    precision: str | None = None,
    device: int = 0,
) -> BatchedEngine:
    """Load one engine by name, without parity; see `load_engine`."""
    _check_batch(batch)
    if name == "onnxruntime":
        from .onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, batch=batch, threads=threads, precision=precision)
    if name == "openvino":
        from .openvino import OpenVinoEngine

        return OpenVinoEngine(bundle, batch=batch, threads=threads, precision=precision)
    if name == "onnxruntime-cuda":
        from .onnxruntime import OnnxRuntimeCudaEngine

        return OnnxRuntimeCudaEngine(bundle, batch=batch, threads=threads, precision=precision, device=device)
    if name in ("tensorrt", "tensorrt-rtx"):
        from .tensorrt import TensorRTEngine

        return TensorRTEngine(bundle, name, batch=batch, precision=precision, device=device)
    raise EngineError(f"there is no engine {name!r}", remedy=f"use auto or one of {', '.join(ENGINES)}")


def _accept_or_replace(bundle: Bundle, engine: BatchedEngine, batch: int, threads: int) -> Engine:
    """Hold a freshly compiled engine to the golden tiles; ONNX Runtime takes the place of one that fails."""
    from .golden import check_engine

    try:
        report = check_engine(bundle, engine)
    except BaseException:
        engine.close()
        raise
    if report:
        engine.accept()
        return engine
    failures = "; ".join(report.failures)
    info = engine.info
    engine.close()
    engine.reject()
    log.event("engine failed parity", level=logging.WARNING, engine=info.name, failures=failures)
    instead = open_engine(bundle, "onnxruntime", batch=batch, threads=threads)
    instead.explain(f"{info.name} {info.precision} was asked for and failed parity ({failures}); its plan was deleted")
    return instead


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise EngineError(f"a batch of {batch} tiles is not possible", remedy="use --batch 1 or more")
