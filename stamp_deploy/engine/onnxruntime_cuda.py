"""ONNX Runtime on CUDA: bound buffers, CUDA graphs, and two pieces under way at once.

Two lanes take turns on one stream. Each has page-locked host buffers, device buffers that are bound once, and a CUDA
graph of its own; the copy in, the run and the copy out are queued without waiting, so that the host fills one lane
while the device works on the other. A fp32 bundle also runs in fp16 and bf16: its graph is converted once (see
mixed_precision.py) and kept in the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..system import log
from .base import BatchedEngine, OutOfMemory, shapes_of
from .cuda import Cuda, free_all
from .graph_forms import forms_of, pick_form, remember_failure
from .interface import EngineInfo, EngineOutput
from .onnxruntime import memory_errors, open_session

if TYPE_CHECKING:
    from ..bundle import Bundle

LANES = 2


class OnnxRuntimeCudaEngine(BatchedEngine):
    """ONNX Runtime's CUDA provider: tensors stay on the device, the batch is fixed and replayed as a CUDA graph.

    A piece shorter than the batch is filled up with older tiles and what comes of them is thrown away, because a CUDA
    graph has one shape. Without the package cuda-bindings there is one lane, and each piece is waited for.
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
        cuda: Cuda | None = None,
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
        forms = forms_of("onnxruntime-cuda", wanted, batch, onnxruntime.__version__)
        form, self._other_form = pick_form(bundle, self.name, wanted, forms)
        self._read = partial(encoder_in, bundle, wanted, form)  # read when it is needed: the bytes are not kept
        self._forget = partial(remove_converted, bundle, wanted, form)
        self._remember_failure = partial(remember_failure, bundle, self.name, wanted, form)
        self._device, self._graphs = device, graphs and self.memory == "cuda"
        self._cuda, why_not = (cuda, "") if cuda is not None else self._find_cuda()
        self.depth = LANES if self._cuda is not None else 1
        info = EngineInfo(
            self.name,
            onnxruntime.__version__,
            f"{self.memory}:{device}",
            wanted,
            details={
                "cuda_graphs": "yes" if self._graphs else "no",
                "io_binding": "yes",
                "graph": form.name,
                "page_locked": "yes" if self._cuda is not None else f"no: {why_not}",
            },
        )
        super().__init__(info, **shapes_of(bundle), batch=batch)
        self._what = f"ONNX Runtime {onnxruntime.__version__} on {info.device}"
        self._threads = threads or 1
        self._lanes: list[_Lane] = []
        self._session: Any = None
        self._stream: Any = None
        self._turn = 0
        try:
            self._allocate()
        except OutOfMemory as error:
            self._shrink(error)

    def reject(self) -> bool:
        """Delete the converted graph; another form of it may follow."""
        self._forget()
        return self._other_form and self._remember_failure()

    def _find_cuda(self) -> tuple[Cuda | None, str]:
        """The CUDA runtime for page-locked buffers, or why there is none."""
        if self.memory != "cuda":
            return None, "the buffers are the host's"
        try:
            return Cuda(self._device), ""
        except EngineError as error:
            return None, error.cause[:120]

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
            self._without_graphs(error)
            return opened

    def _options(self) -> dict[str, str]:
        """TF32 would cut the matrix products of a fp32 run to 11 bits, so it is off."""
        if self.memory != "cuda":
            return {}
        stream = {} if self._stream is None else {"user_compute_stream": str(int(self._stream))}
        return {
            "device_id": str(self._device),
            "enable_cuda_graph": "1" if self._graphs else "0",
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            **stream,
        }

    def _allocate(self) -> None:
        """A new session (its CUDA graphs are of the old shape) and lanes of the piece's size."""
        self._give_back()
        self.accepted = False
        try:
            if self._cuda is not None:
                self._stream = self._cuda.stream()
            with memory_errors():
                self._session = self._open()
                for number in range(self.depth):
                    self._lanes.append(self._lane(number))
            self._first_run()
        except BaseException:
            with suppress(EngineError, OutOfMemory):  # the first error is the one to tell
                self._give_back()
            raise

    def _lane(self, number: int) -> _Lane:
        place = (self.memory, self._device)
        run = partial(self._run, number=number)
        return _Lane(self._session.io_binding(), self._shapes(), place, run, self._cuda, self._stream)

    def _run(self, binding: Any, number: int) -> None:
        """Queue a run, or do it where there is no stream to queue it on."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        if self._graphs:
            options.add_run_config_entry("gpu_graph_id", str(number + 1))  # each lane's addresses are its own
        if self._cuda is not None:
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._session.run_with_iobinding(binding, options)

    def _first_run(self) -> None:
        """A CUDA graph is recorded by the first run of each lane: where one fails, all is made anew without graphs."""
        if not self._graphs:
            return
        try:
            piece = np.zeros((1, self._tile_px, self._tile_px, 3), np.uint8)
            for _ in self._lanes:
                self._collect(self._submit(piece))
        except EngineError as error:
            self._graphs = False
            self._allocate()
            self._without_graphs(error)

    def _without_graphs(self, error: EngineError) -> None:
        self.explain(self._info.why, cuda_graphs=f"no: {error.cause[:120]}")
        log.event("no CUDA graph", level=logging.WARNING, engine=self.name, cause=error.cause[:200])

    def _submit(self, piece: NDArray[np.uint8]) -> tuple[_Lane, int]:
        lane = self._lanes[self._turn % len(self._lanes)]
        self._turn += 1
        with memory_errors():
            lane.start(piece)
        return lane, len(piece)

    def _collect(self, ticket: tuple[_Lane, int]) -> EngineOutput:
        lane, count = ticket
        with memory_errors():
            found = lane.finish(count)
        return EngineOutput(*(found[name] for name in self._widths))

    def _release(self) -> None:
        self._give_back()

    def _give_back(self) -> None:
        """Lanes, session and stream, in this order; everything, whatever one of them says. Raises the first fault."""
        steps: list[Callable[[], None]] = []
        if self._cuda is not None and self._stream is not None:
            steps.append(partial(self._cuda.wait, self._stream))
        steps += [step for lane in self._lanes for step in lane.steps_to_free()]
        self._lanes, self._session = [], None
        if self._cuda is not None and self._stream is not None:
            steps.append(partial(self._cuda.free_stream, self._stream))
        self._stream = None
        free_all(steps)


class _Lane:
    """Bound device buffers, and host buffers that are page-locked where there is a CUDA runtime to lock them.

    Parameters
    ----------
    binding : IOBinding
    shapes : dict of str to (shape, dtype)
        Of "tiles" and of each output.
    place : (str, int)
        Kind and index of the device that holds the buffers.
    run : callable
        Queues, or does, a run of the session with the binding.
    cuda, stream : optional
        For copies that nobody waits for.
    """

    def __init__(
        self,
        binding: Any,
        shapes: dict[str, tuple[tuple[int, ...], Any]],
        place: tuple[str, int],
        run: Callable[[Any], None],
        cuda: Cuda | None,
        stream: Any,
    ) -> None:
        import onnxruntime

        self._binding, self._run, self._cuda, self._stream = binding, run, cuda, stream
        self._pinned: dict[str, int] = {}
        self._host: dict[str, NDArray[Any]] = {}
        self._values: dict[str, Any] = {}
        try:
            for name, (shape, dtype) in shapes.items():
                value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, *place)
                if cuda is not None:
                    self._pinned[name], self._host[name] = cuda.pinned(shape, dtype)
                elif name == "tiles":
                    self._host[name] = np.zeros(shape, dtype)
                (binding.bind_ortvalue_input if name == "tiles" else binding.bind_ortvalue_output)(name, value)
                self._values[name] = value
        except BaseException:
            with suppress(EngineError, OutOfMemory):
                free_all(self.steps_to_free())
            raise

    def start(self, piece: NDArray[np.uint8]) -> None:
        """Copy a piece into the host buffer (what it does not fill keeps older tiles) and queue the work."""
        tiles = self._host["tiles"]
        np.copyto(tiles[: len(piece)], piece)
        if self._cuda is None:
            self._values["tiles"].update_inplace(tiles)
            self._binding.synchronize_inputs()
            self._run(self._binding)
            self._binding.synchronize_outputs()
            return
        self._cuda.use()
        self._cuda.to_device(self._values["tiles"].data_ptr(), self._pinned["tiles"], tiles.nbytes, self._stream)
        self._run(self._binding)
        for name, host in self._host.items():
            if name != "tiles":
                self._cuda.to_host(self._pinned[name], self._values[name].data_ptr(), host.nbytes, self._stream)

    def finish(self, count: int) -> dict[str, NDArray[np.float32]]:
        """Wait for the work; the first `count` rows of each output, as arrays of the caller's."""
        if self._cuda is None:
            return {name: value.numpy()[:count].copy() for name, value in self._values.items() if name != "tiles"}
        self._cuda.use()
        self._cuda.wait(self._stream)
        return {name: host[:count].copy() for name, host in self._host.items() if name != "tiles"}

    def steps_to_free(self) -> list[Callable[[], None]]:
        """What gives the page-locked buffers back; those of the device go with the session. Ends the lane."""
        self._host.clear()
        self._values.clear()
        steps: list[Callable[[], None]] = []
        if self._cuda is not None:
            steps = [partial(self._cuda.free_pinned, address) for address in self._pinned.values()]
        self._pinned = {}
        return steps
