"""`load_engine`: an engine that may score, because parity has accepted it on this machine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .. import log
from .auto import choose
from .base import BatchedEngine, Engine
from .golden import check_engine
from .registry import check_batch, open_engine

if TYPE_CHECKING:
    from ..bundle import Bundle


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
        check_batch(batch)
        return choose(bundle, batch=batch, threads=threads, precision=precision, device=device)
    engine = open_engine(bundle, name, batch=batch, threads=threads, precision=precision, device=device)
    engine.explain("asked for")
    return engine if engine.accepted else _accept_or_replace(bundle, engine, batch, threads)


def _accept_or_replace(bundle: Bundle, engine: BatchedEngine, batch: int, threads: int) -> Engine:
    """Hold a freshly compiled engine to the golden tiles; ONNX Runtime takes the place of one that fails."""
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
