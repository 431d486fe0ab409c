"""ONNX Runtime on the CPU, the default engine: one wheel on every machine. A bundle runs in its own precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..system.processor import usable_cores
from .base import BatchedEngine, OutOfMemory, shapes_of
from .interface import EngineInfo, EngineOutput

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..bundle.contents import OnnxBytes


def open_session(model: OnnxBytes, threads: int, providers: list[Any], what: str, batch: int | None = None) -> Any:
    """An InferenceSession over bytes; with `batch` the free axis of the tiles is fixed, and shapes are computed once.

    Raises
    ------
    EngineError
        ONNX Runtime cannot load the model, or a provider that was asked for is not in use.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # the graph is a chain: a second pool would only take cores from the decoder
    options.log_severity_level = 4
    if batch is not None:
        axis = (model.facts.inputs["tiles"].shape or (None,))[0]
        if isinstance(axis, str) and axis:
            options.add_free_dimension_override_by_name(axis, batch)
    if model.data:
        names, data = list(model.data), list(model.data.values())
        options.add_external_initializers_from_files_in_memory(names, data, [len(part) for part in data])
    try:
        session = onnxruntime.InferenceSession(model.graph, options, providers=providers)
    except Exception as error:  # the runtime's exceptions share no base class
        raise EngineError(
            f"{what} cannot load the encoder: {_first_line(error)}",
            path=model.path,
            remedy="export the bundle in another precision, or use another --engine",
        ) from error
    first = providers[0][0] if isinstance(providers[0], tuple) else providers[0]
    if session.get_providers()[0] != first:
        raise EngineError(f"{what} fell back to {session.get_providers()[0]}: {first} cannot be used here")
    return session


class OnnxRuntimeEngine(BatchedEngine):
    """ONNX Runtime's CPU provider, in the precision of the bundle's ONNX file."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, *, batch: int, threads: int = 0, precision: str | None = None) -> None:
        import onnxruntime

        if precision not in (None, bundle.precision):
            raise EngineError(
                f"ONNX Runtime on the CPU runs this bundle in {bundle.precision}, not in {precision}",
                path=bundle.path,
                remedy="leave --precision out, or export the bundle in that precision",
            )
        threads = threads or usable_cores()
        info = EngineInfo(
            self.name, onnxruntime.__version__, "cpu", bundle.precision, details={"threads": str(threads)}
        )
        super().__init__(info, **shapes_of(bundle), batch=batch)
        what = f"ONNX Runtime {onnxruntime.__version__} on the CPU"
        self._session = open_session(bundle.read_encoder(), threads, ["CPUExecutionProvider"], what)

    def _submit(self, piece: NDArray[np.uint8]) -> EngineOutput:
        with memory_errors():
            found = self._session.run(list(self._widths), {"tiles": np.ascontiguousarray(piece)})
        return EngineOutput(*found)

    def _collect(self, ticket: EngineOutput) -> EngineOutput:
        return ticket

    def _release(self) -> None:
        self._session = None


class memory_errors:
    """Turn ONNX Runtime's failures into `OutOfMemory` or `EngineError`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, (EngineError, OutOfMemory)) or not isinstance(error, Exception):
            return
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(sign in text for sign in MEMORY_SIGNS):
            raise OutOfMemory(_first_line(error)) from error
        raise EngineError(
            f"ONNX Runtime fails: {_first_line(error)}",
            remedy="check the engine with `stamp-deploy parity`, or use another --engine",
        ) from error


MEMORY_SIGNS = ("out of memory", "failed to allocate memory", "bad_alloc", "cuda failure 2:", "bfcarena")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
