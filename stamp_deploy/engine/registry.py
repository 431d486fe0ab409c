"""Engines by name: which there are, and how one is opened."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..errors import EngineError
from .base import BatchedEngine

if TYPE_CHECKING:
    from ..bundle import Bundle

DEFAULT = "onnxruntime"
"""Runs on every machine, and takes the place of an engine that fails parity."""
AUTO = "auto"
"""The engine, or the precision, that is fastest of those that pass parity."""
ENGINES = (DEFAULT, "openvino", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
REMOTE = "triton"
"""A server elsewhere: never tried unasked, and the only engine that opens a connection."""


def open_engine(
    bundle: Bundle,
    name: str,
    *,
    batch: int,
    threads: int = 0,
    precision: str | None = None,
    device: int = 0,
    url: str | None = None,
) -> BatchedEngine:
    """Load one engine by name, without parity; see `load_engine`. A precision that a twin has is that twin's."""
    check_batch(batch)
    check_url(name, url)
    engine: BatchedEngine
    if url is not None:
        from .triton import TritonEngine

        engine = TritonEngine(bundle, url=url, batch=batch, precision=precision)
        twin = bundle
    else:
        twin = bundle.for_engine(name, precision)
        engine = _open(twin, name, batch, threads, precision, device)
    engine.reopen = partial(
        open_engine, name=name, batch=batch, threads=threads, precision=precision, device=device, url=url
    )
    if twin is not bundle:
        engine.explain(engine.info.why, encoder=twin.encoder_file)
    return engine


def _open(bundle: Bundle, name: str, batch: int, threads: int, precision: str | None, device: int) -> BatchedEngine:
    if name == DEFAULT:
        from .onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, batch=batch, threads=threads, precision=precision)
    if name == "openvino":
        from .openvino import OpenVinoEngine

        return OpenVinoEngine(bundle, batch=batch, threads=threads, precision=precision)
    if name == "onnxruntime-cuda":
        from .onnxruntime_cuda import OnnxRuntimeCudaEngine

        return OnnxRuntimeCudaEngine(bundle, batch=batch, threads=threads, precision=precision, device=device)
    if name in ("tensorrt", "tensorrt-rtx"):
        from .tensorrt import TensorRTEngine

        return TensorRTEngine(bundle, name, batch=batch, precision=precision, device=device)
    raise EngineError(f"there is no engine {name!r}", remedy=f"use auto or one of {', '.join((*ENGINES, REMOTE))}")


def precisions_of(bundle: Bundle, name: str, wanted: str | None = None) -> tuple[str | None, ...]:
    """Precisions of an engine that are worth measuring on this machine; None is the engine's only or own choice.

    Parameters
    ----------
    wanted : str, optional
        The one that was asked for; `AUTO` for all that the engine or a twin of the bundle has. By default those that
        the bundle allows unasked.
    """
    if wanted not in (None, AUTO):
        return (wanted,)
    own: tuple[str | None, ...] = (None,)
    if name == "openvino":
        from .openvino import offered

        own = offered(bundle.precision)
    twins = bundle.twin_precisions(name, by_default=wanted is None)
    return (*own, *(precision for precision in twins if precision not in own))


def check_url(name: str, url: str | None) -> None:
    """A server is named for the engine that asks one, and for no other.

    Raises
    ------
    EngineError
        It is not so.
    """
    if name == REMOTE and not url:
        raise EngineError(f"the engine {REMOTE} needs a server", remedy="name it: --url http://HOST:8000")
    if name != REMOTE and url:
        raise EngineError(
            f"the engine {name} runs here and asks no server", remedy=f"use --engine {REMOTE}, or no --url"
        )


def check_batch(batch: int) -> None:
    """Refuse a batch of less than one tile.

    Raises
    ------
    EngineError
        See above.
    """
    if batch < 1:
        raise EngineError(f"a batch of {batch} tiles is not possible", remedy="use --batch 1 or more")
