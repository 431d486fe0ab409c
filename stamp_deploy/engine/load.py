"""`load_engine`: an engine that may score, because parity has accepted it on this machine."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from ..errors import EngineError, ParityError, StampError
from ..system import log
from .auto import choose, open_accepted
from .base import BatchedEngine
from .interface import Engine
from .registry import AUTO, DEFAULT, check_batch, check_url, precisions_of
from .tensorrt_plan import MODULES
from .verdict import accept_a_form

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
    url: str | None = None,
) -> Engine:
    """Load a bundle's encoder, accepted by parity on this machine.

    The check takes as long as a few batches, once per machine: the verdict is remembered until anything changes.

    Parameters
    ----------
    bundle : Bundle
        A verified bundle.
    name : str
        One of `ENGINES`; ``triton``, a server elsewhere; or ``auto``: the fastest that passes parity on this machine.
    batch : int
        The largest number of tiles that will be handed over at once.
    threads : int
        CPU threads; 0 means one per core.
    precision : str, optional
        The engine's own choice where not given: of several, the fastest that passes parity here. "auto" tries the
        bundle's twins, too, those included that it does not offer unasked.
    device : int
        Index of the GPU, for engines that use one. Several GPUs: one engine each, in processes or threads of their own.
    url : str, optional
        The address of a Triton server, for ``triton`` alone.

    Raises
    ------
    EngineError
        The engine is unknown or cannot be used on this machine.
    ParityError
        No engine reproduces the golden outputs.
    """
    check_batch(batch)
    check_url(name, url)
    if name == AUTO:
        return choose(bundle, batch=batch, threads=threads, precision=precision, device=device)
    wanted = precisions_of(bundle, name, precision)
    try:
        if len(wanted) > 1:
            engine = choose(bundle, (name,), batch=batch, threads=threads, precision=precision, device=device)
            engine.explain(f"asked for; {engine.info.why}")
        else:
            engine = open_accepted(
                bundle, name, batch=batch, threads=threads, precision=wanted[0], device=device, url=url
            )
            engine.explain("asked for")
    except ParityError as error:
        return _replace(bundle, name, error, batch, threads)
    return engine


def swap_adapter(engine: Engine, bundle: Bundle) -> Engine:
    """A loaded engine with another adapter of the same bundle, accepted by parity on this machine.

    TensorRT takes the weights into the plan that is loaded (refit); other engines are opened anew over them, which is
    what the weights cost to load and no conversion or compilation of a plan.

    Parameters
    ----------
    engine : Engine
        One of `load_engine`. It must not be used afterwards; what is returned may be the same.
    bundle : Bundle
        ``load_bundle(path, adapter=...)``.

    Raises
    ------
    EngineError
        The engine was not loaded by `load_engine`, or cannot be opened with the weights.
    ParityError
        It does not reproduce the golden outputs of the adapter; the engine is closed.
    """
    if not isinstance(engine, BatchedEngine) or engine.reopen is None:
        raise EngineError("this engine takes no other weights", remedy="load one with load_engine")
    again = partial(engine.reopen, bundle)
    if not engine.take_weights(bundle):
        engine.close()
        engine = again()
    engine, verdict = accept_a_form(bundle, engine, again)
    if not verdict:
        raise ParityError(
            f"{engine.info.name} {engine.info.precision} fails parity with this adapter "
            f"({'; '.join(verdict.failures)})",
            path=bundle.path,
            remedy="load an engine for the adapter by itself",
        )
    engine.explain("asked for, with another adapter's weights")
    return engine


def _replace(bundle: Bundle, name: str, error: ParityError, batch: int, threads: int) -> Engine:
    """ONNX Runtime in the place of an engine that failed parity, held to the same tiles.

    Raises
    ------
    ParityError
        The engine's own failure, where ONNX Runtime cannot take its place.
    """
    log.event("engine failed parity", level=logging.WARNING, engine=name, failures=error.cause)
    if name == DEFAULT:
        raise error
    try:
        instead = open_accepted(bundle, DEFAULT, batch=batch, threads=threads)
    except StampError:
        raise error from None
    deleted = "; its plan was deleted" if name in MODULES else ""
    instead.explain(f"{name} was asked for and failed parity ({error.cause}){deleted}")
    return instead
