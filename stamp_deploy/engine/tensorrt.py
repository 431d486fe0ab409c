"""TensorRT and TensorRT-RTX behind one class: CUDA graphs, two streams, page-locked buffers.

Two lanes take turns. Each has its own stream, execution context, device buffers and page-locked host buffers; the
copy in, the network and the copy out are recorded once as a CUDA graph and replayed, so that one lane's transfers
and the host's work hide behind the other lane's compute.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, EngineError
from .attention_layers import in_words
from .base import BatchedEngine, OutOfMemory, shapes_of
from .cuda import Cuda, free_all
from .graph_forms import remember_failure
from .interface import EngineInfo, EngineOutput
from .mixed_precision import encoder_in, remove_converted
from .tensorrt_plan import (
    Plan,
    accept_plan,
    check_capability,
    default_precision,
    delete_plan,
    get_plan,
    load_module,
    logger_of,
    refit_plan,
    version_of,
)
from .tensorrt_runtime import ContextMaker

if TYPE_CHECKING:
    from ..bundle import Bundle

LANES = 2
MEMORY_SIGNS = ("out of memory", "outofmemory", "memoryallocation", "insufficient memory", "failed to allocate")
STALE_SIGNS = ("version", "magic tag", "serializ", "incompatib", "corrupt", "checksum", "compute capability")
"""What TensorRT's log says when a plan was not made for it."""


class TensorRTEngine(BatchedEngine):
    """One plan on one GPU. ``flavour`` is ``tensorrt`` or ``tensorrt-rtx``.

    Raises
    ------
    EngineError
        The library, the driver or the GPU is missing, or the plan cannot be built or loaded.
    """

    depth = LANES

    def __init__(
        self,
        bundle: Bundle,
        flavour: str,
        *,
        batch: int,
        precision: str | None = None,
        device: int = 0,
        graphs: bool = True,
        cuda: Cuda | None = None,
    ) -> None:
        self._trt = load_module(flavour)
        self._cuda = cuda or Cuda(device)
        self._bundle, self._flavour, self._graphs = bundle, flavour, graphs
        self._gpu = self._cuda.gpu()
        check_capability(self._trt, self._gpu)
        wanted = precision or default_precision(bundle)
        info = EngineInfo(
            flavour,
            version_of(self._trt),
            f"cuda:{device} {self._gpu.name}",
            wanted,
            details={"driver_cuda": self._gpu.driver, "capability": self._gpu.capability, "streams": str(LANES)},
        )
        super().__init__(info, **shapes_of(bundle), batch=batch)
        self.name = flavour
        self._lanes: list[_Lane] = []
        self._refitted = False
        self._engine: Any = None
        self._turn = 0
        self.plan: Plan
        try:
            self._allocate()
        except OutOfMemory as error:
            self._shrink(error)
        captured = all(lane.graph is not None for lane in self._lanes)
        self.explain(
            "",
            cuda_graphs="yes" if captured else "no",
            graph=self.plan.form.name,
            attention=in_words(self.plan.facts.get("attention")),
            plan=self.plan.facts["sha256"][:16],
        )

    def accept(self) -> None:
        """Record in the cache that the plan passed parity here."""
        if not self._refitted:
            accept_plan(self.plan)
        self.accepted = True

    def reject(self) -> bool:
        """Delete the plan, unless it failed with other weights than it was built with; another form may follow."""
        if self._refitted:
            return False
        delete_plan(self.plan)
        form, precision = self.plan.form, self._info.precision
        remove_converted(self._bundle, precision, form)
        return self.plan.another_form and remember_failure(self._bundle, self._flavour, precision, form)

    def take_weights(self, bundle: Bundle) -> bool:
        """Refit the loaded plan with another adapter's weights; False where it is of another graph.

        The lanes stay as they are: addresses and streams do not change, and neither do the recorded graphs.
        """
        if bundle.merged is None or self._bundle.merged is None or bundle.widths != self._bundle.widths:
            return False
        self._cuda.use()
        for lane in self._lanes:
            self._cuda.wait(lane.stream)
        with encoder_in(bundle, self._info.precision, self.plan.form).snapshot() as encoder:
            if not refit_plan(self._trt, self._engine, encoder):
                return False
        self._bundle, self._refitted, self.accepted = bundle, True, False
        self.compiled = sha256(f"{self.plan.facts['sha256']} {bundle.sha256}".encode()).hexdigest()
        return True

    def _allocate(self) -> None:
        """Plan, contexts and buffers for pieces of `_chunk` tiles."""
        self._release()
        self._refitted = False
        self._cuda.use()
        try:
            self._engine = self._deserialise()
            self.accepted, self.compiled = self.plan.accepted, self.plan.facts["sha256"]
            contexts = ContextMaker(self._trt, self._engine, self.plan.folder)
            for _ in range(LANES):
                self._lanes.append(_Lane(self._cuda, contexts, self._shapes(), self._graphs))
            contexts.keep_kernels()
        except BaseException:
            with suppress(EngineError, OutOfMemory):  # the first error is the one to tell
                self._release()
            raise

    def _deserialise(self) -> Any:
        """The plan as an engine; a plan that the library says it cannot read is built again, once.

        The library gives nothing when memory is short, too; then the plan is kept and the batch halved.
        """
        logger = logger_of(self._trt)
        for _ in range(2):
            plan = get_plan(self._bundle, self._flavour, self._gpu, batch=self._chunk, precision=self._info.precision)
            self._runtime = self._trt.Runtime(logger)
            logger.last = ""
            engine = self._runtime.deserialize_cuda_engine(plan.data)
            self.plan = replace(plan, data=b"")  # the library has its own copy
            if engine is not None:
                return engine
            reason = logger.last.lower()
            if any(sign in reason for sign in MEMORY_SIGNS):
                raise OutOfMemory(logger.last[:300])
            if not any(sign in reason for sign in STALE_SIGNS):
                break
            delete_plan(plan)
        raise EngineError(
            f"{self._flavour} cannot load the plan from the cache: {logger.last[:300] or 'it gives no reason'}",
            remedy="use --engine onnxruntime; if it happens again, empty the folder plans/ of the cache",
        )

    def _submit(self, piece: NDArray[np.uint8]) -> tuple[_Lane, int]:
        self._cuda.use()
        lane = self._lanes[self._turn]
        self._turn = (self._turn + 1) % len(self._lanes)
        lane.start(piece)
        return lane, len(piece)

    def _collect(self, ticket: tuple[_Lane, int]) -> EngineOutput:
        lane, count = ticket
        self._cuda.use()
        self._cuda.wait(lane.stream)
        return EngineOutput(*(lane.host[name][:count].copy() for name in self._widths))

    def _release(self) -> None:
        """Free every lane, whatever one of them says; the first fault is raised when all is done."""
        lanes, self._lanes = self._lanes, []
        try:
            free_all(lane.free for lane in lanes)
        finally:
            self._engine, self._runtime = None, None


class _Lane:
    """A stream with a context and buffers of fixed addresses. Buffers are taken in order and given back in `free`."""

    def __init__(
        self, cuda: Cuda, contexts: ContextMaker, shapes: dict[str, tuple[tuple[int, ...], Any]], graphs: bool
    ) -> None:
        self.cuda = cuda
        self.graph: Any = None
        self.stream: Any = None
        self.host: dict[str, NDArray[Any]] = {}
        self._pinned: dict[str, int] = {}
        self._device: dict[str, int] = {}
        try:
            self.stream = cuda.stream()
            self.context = contexts.make()
            if self.context is None:
                raise OutOfMemory("no execution context")
            for name, (shape, dtype) in shapes.items():
                self._pinned[name], self.host[name] = cuda.pinned(shape, dtype)
                self._device[name] = cuda.allocate(self.host[name].nbytes)
                if not self.context.set_tensor_address(name, self._device[name]):
                    raise EngineError(f"the plan has no tensor {name!r}", remedy="export the bundle again")
            self.context.set_input_shape("tiles", shapes["tiles"][0])
            for name, (shape, _) in shapes.items():
                if tuple(self.context.get_tensor_shape(name)) != shape:
                    raise BundleError(
                        f"the plan gives {name} the shape {tuple(self.context.get_tensor_shape(name))}, not {shape}",
                        remedy="export the bundle again",
                    )
            self._queue()  # once without a graph: the library initialises lazily, which cannot be recorded
            cuda.wait(self.stream)
            if graphs and self._capturable():
                with suppress(EngineError):
                    self._record()
        except BaseException:
            with suppress(EngineError, OutOfMemory):  # the first error is the one to tell
                self.free()
            raise

    def start(self, piece: NDArray[np.uint8]) -> None:
        """Copy a piece into the page-locked buffer (what it does not fill keeps older tiles) and queue the work."""
        np.copyto(self.host["tiles"][: len(piece)], piece)
        if self.graph is not None:
            self.cuda.launch(self.graph, self.stream)
        else:
            self._queue()

    def _queue(self) -> None:
        tiles = "tiles"
        self.cuda.to_device(self._device[tiles], self._pinned[tiles], self.host[tiles].nbytes, self.stream)
        if not self.context.execute_async_v3(int(self.stream)):
            raise EngineError("TensorRT refuses to run the plan", remedy="use --engine onnxruntime")
        for name in (name for name in self._device if name != tiles):
            self.cuda.to_host(self._pinned[name], self._device[name], self.host[name].nbytes, self.stream)

    def _capturable(self) -> bool:
        """Whether the library says that its work can be recorded; one that cannot say is tried."""
        asked = getattr(self.context, "is_stream_capturable", None)
        return asked is None or bool(asked(int(self.stream)))

    def _record(self) -> None:
        """Record `_queue` as a graph; where the library or the driver refuses, work goes on without."""
        self.cuda.begin_capture(self.stream)
        queued = False
        try:
            self._queue()
            queued = True
        finally:
            with suppress(EngineError):
                graph = self.cuda.end_capture(self.stream)  # in any case: a stream must not stay in capture
                if queued:
                    self.graph = graph
                else:
                    self.cuda.free_graph(graph)

    def free(self) -> None:
        """Give everything back; safe after a half-finished start, and after a fault of the device.

        Each thing is given back whatever happened to the one before it; the first fault is raised at the end.
        """
        steps: list[Callable[[], None]] = []
        if self.stream is not None:
            steps.append(partial(self.cuda.wait, self.stream))
        if self.graph is not None:
            steps.append(partial(self.cuda.free_graph, self.graph))
        self.context = None
        steps += [partial(self.cuda.free, address) for address in self._device.values()]
        steps += [partial(self.cuda.free_pinned, address) for address in self._pinned.values()]
        if self.stream is not None:
            steps.append(partial(self.cuda.free_stream, self.stream))
        self.host.clear()
        self._device, self._pinned, self.graph, self.stream = {}, {}, None, None
        free_all(steps)
