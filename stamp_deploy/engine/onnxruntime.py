"""ONNX Runtime: on the CPU the default engine, one wheel on every machine; on CUDA with IO binding and graphs.

A bundle runs in its own precision on the CPU. On CUDA a fp32 bundle also runs in fp16 and bf16: its graph is
converted once (see mixed_precision.py) and kept in the cache.
"""

from __future__ import annotations

import os
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .base import BatchedEngine, EngineInfo, EngineOutput, OutOfMemory, shapes_of

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
        threads = threads or os.cpu_count() or 1
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


class OnnxRuntimeCudaEngine(BatchedEngine):
    """ONNX Runtime's CUDA provider: tensors stay on the device, the batch is fixed and replayed as one CUDA graph.

    A piece shorter than the batch is padded with its own first tile and the padding thrown away, because a CUDA
    graph has one shape. Buffers are bound once.
    """

    name = "onnxruntime-cuda"
    provider = "CUDAExecutionProvider"
    memory = "cuda"
    """Where ONNX Runtime is to place the buffers."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        batch: int,
        threads: int = 0,
        precision: str | None = None,
        device: int = 0,
        graphs: bool = True,
    ) -> None:
        import onnxruntime

        from .mixed_precision import encoder_in, remove_converted

        if self.provider not in onnxruntime.get_available_providers():
            raise EngineError(
                f"this ONNX Runtime {onnxruntime.__version__} has no {self.provider}",
                remedy="pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'; the two exclude "
                "each other",
            )
        if hasattr(onnxruntime, "preload_dlls") and self.memory == "cuda":
            onnxruntime.preload_dlls()  # CUDA and cuDNN from wheels, where they are installed so
        wanted = precision or ("fp16" if bundle.precision == "fp32" else bundle.precision)
        self._read = partial(encoder_in, bundle, wanted)  # read when it is needed: the bytes are not kept
        self._forget = partial(remove_converted, bundle, wanted)
        self._device, self._graphs = device, graphs and self.memory == "cuda"
        info = EngineInfo(
            self.name,
            onnxruntime.__version__,
            f"{self.memory}:{device}",
            wanted,
            details={"cuda_graphs": "yes" if self._graphs else "no", "io_binding": "yes"},
        )
        super().__init__(info, **shapes_of(bundle), batch=batch)
        self._what = f"ONNX Runtime {onnxruntime.__version__} on {info.device}"
        self._threads = threads or 1
        self._outputs: dict[str, Any] = {}
        self._session: Any = None
        try:
            self._allocate()
        except OutOfMemory as error:
            self._shrink(error)

    def reject(self) -> None:
        """Delete the converted graph."""
        self._forget()

    def _open(self) -> Any:
        """The session; without CUDA graphs where the runtime cannot record this model."""

        encoder = self._read()
        self.compiled = sha256(encoder.graph).hexdigest()

        def session() -> Any:
            providers = [(self.provider, self._options())]
            return open_session(encoder, self._threads, providers, self._what, self._chunk)

        try:
            return session()
        except EngineError as error:
            if not self._graphs:
                raise
            self._graphs = False
            opened = session()
            self.explain(self._info.why, cuda_graphs=f"no: {error.cause[:120]}")
            return opened

    def _options(self) -> dict[str, str]:
        """TF32 would cut the matrix products of a fp32 run to 11 bits, so it is off."""
        if self.memory != "cuda":
            return {}
        return {
            "device_id": str(self._device),
            "enable_cuda_graph": "1" if self._graphs else "0",
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
        }

    def _allocate(self) -> None:
        """A new session (its CUDA graph is of the old shape) and buffers of the piece's size."""
        import onnxruntime

        self._session, self.accepted = None, False
        with memory_errors():
            self._session = self._open()
            place = (self.memory, self._device)
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type
            self._staging = np.zeros((self._chunk, self._tile_px, self._tile_px, 3), np.uint8)
            self._tiles = onnxruntime.OrtValue.ortvalue_from_numpy(self._staging, *place)
            self._outputs = {
                name: value([self._chunk, width], np.float32, *place) for name, width in self._widths.items()
            }
            self._binding = self._session.io_binding()
            self._binding.bind_ortvalue_input("tiles", self._tiles)
            for name, output in self._outputs.items():
                self._binding.bind_ortvalue_output(name, output)
        self._first_run()

    def _first_run(self) -> None:
        """A CUDA graph is recorded by the first run: where that fails, buffers and session are made without one."""
        if not self._graphs:
            return
        try:
            self._submit(self._staging[:1])
        except EngineError as error:
            self._graphs = False
            self._allocate()
            self.explain(self._info.why, cuda_graphs=f"no: {error.cause[:120]}")

    def _submit(self, piece: NDArray[np.uint8]) -> EngineOutput:
        count = len(piece)
        source = np.ascontiguousarray(piece)
        if count < self._chunk:
            self._staging[:count] = piece
            self._staging[count:] = piece[0]
            source = self._staging
        with memory_errors():
            self._tiles.update_inplace(source)
            self._binding.synchronize_inputs()
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
            found = [output.numpy() for output in self._outputs.values()]
        return EngineOutput(*(values[:count].copy() for values in found))

    def _collect(self, ticket: EngineOutput) -> EngineOutput:
        return ticket

    def _release(self) -> None:
        self._session = self._binding = self._tiles = None
        self._outputs = {}


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
