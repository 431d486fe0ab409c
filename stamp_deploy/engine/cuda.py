"""What the engines on CUDA need of the CUDA runtime: memory, streams, graphs. One method a call, each checked.

Uses the package cuda-bindings (part of cuda-python), which needs no compiler and imports without a driver.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .base import OutOfMemory

MEMORY_ERROR = 2
"""cudaErrorMemoryAllocation."""


@dataclass(frozen=True)
class Gpu:
    """One device: its index, name, compute capability ("9.0"), memory in bytes, and the driver's CUDA version."""

    index: int
    name: str
    capability: str
    memory_bytes: int
    driver: str


class Cuda:
    """The runtime API of one device, from any thread: what needs a current device makes this one current first."""

    def __init__(self, device: int = 0, runtime: Any = None) -> None:
        self.rt = runtime if runtime is not None else _runtime()
        self.device = device
        count = self._call("cudaGetDeviceCount")
        if not 0 <= device < count:
            raise EngineError(f"there is no GPU {device}: {count} can be seen", remedy="check CUDA_VISIBLE_DEVICES")

    def gpu(self) -> Gpu:
        """Facts of the device."""
        return self._facts(self.device)

    def gpus(self) -> tuple[Gpu, ...]:
        """Facts of every device that can be seen; no device is made current, so no context is made on any."""
        return tuple(self._facts(index) for index in range(self._call("cudaGetDeviceCount")))

    def _facts(self, index: int) -> Gpu:
        facts = self._call("cudaGetDeviceProperties", index)
        name = facts.name.decode() if isinstance(facts.name, bytes) else str(facts.name)
        driver = self._call("cudaDriverGetVersion")
        return Gpu(
            index,
            name.rstrip("\0"),
            f"{facts.major}.{facts.minor}",
            int(facts.totalGlobalMem),
            f"{driver // 1000}.{driver % 1000 // 10}",
        )

    def use(self) -> None:
        """Make the device current in this thread."""
        self._call("cudaSetDevice", self.device)

    def allocate(self, size: int) -> int:
        """Device memory of `size` bytes; its address."""
        self.use()
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self.use()
        self._call("cudaFree", address)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> tuple[int, NDArray[Any]]:
        """Page-locked host memory: its address, and a numpy array over it (zeros)."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.use()
        address = int(self._call("cudaMallocHost", size))
        buffer = (ctypes.c_uint8 * size).from_address(address)
        array = np.frombuffer(buffer, dtype=dtype).reshape(shape)
        array[...] = 0
        return address, array

    def free_pinned(self, address: int) -> None:
        """Give page-locked memory back; no array over it may be used any more."""
        self.use()
        self._call("cudaFreeHost", address)

    def stream(self) -> Any:
        """A new stream that does not wait for the default one."""
        self.use()
        return self._call("cudaStreamCreateWithFlags", self.rt.cudaStreamNonBlocking)

    def free_stream(self, stream: Any) -> None:
        """Destroy a stream."""
        self._call("cudaStreamDestroy", stream)

    def wait(self, stream: Any) -> None:
        """Wait until everything in a stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def to_device(self, target: int, source: int, size: int, stream: Any) -> None:
        """Queue a copy from page-locked host memory."""
        self._call("cudaMemcpyAsync", target, source, size, self.rt.cudaMemcpyKind.cudaMemcpyHostToDevice, stream)

    def to_host(self, target: int, source: int, size: int, stream: Any) -> None:
        """Queue a copy to page-locked host memory."""
        self._call("cudaMemcpyAsync", target, source, size, self.rt.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)

    def begin_capture(self, stream: Any) -> None:
        """Record what is queued from now on instead of doing it."""
        mode = self.rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        """Stop recording; an executable graph."""
        graph = self._call("cudaStreamEndCapture", stream)
        executable = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        return executable

    def launch(self, graph: Any, stream: Any) -> None:
        """Queue a recorded graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def free_graph(self, graph: Any) -> None:
        """Destroy an executable graph."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        code, *values = getattr(self.rt, name)(*arguments)
        if int(code) == MEMORY_ERROR:
            raise OutOfMemory(name)
        if int(code) != 0:
            raise EngineError(
                f"CUDA: {name} fails with {getattr(code, 'name', code)}",
                remedy="look at the driver with `stamp-deploy doctor`, or use --engine onnxruntime",
            )
        return values[0] if values else None


def free_all(steps: Iterable[Callable[[], object]]) -> None:
    """Do each step, whatever happened to the one before it; the first fault is raised at the end."""
    faults: list[EngineError | OutOfMemory] = []
    for step in steps:
        try:
            step()
        except (EngineError, OutOfMemory) as error:
            faults.append(error)
    if faults:
        raise faults[0]


def visible_gpus() -> tuple[Gpu, ...]:
    """Every GPU that this process can see; none where there is no driver or cuda-bindings is not installed."""
    try:
        return Cuda(0).gpus()
    except (EngineError, OutOfMemory):
        return ()


def _runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise EngineError(
            "the GPU engines need the package cuda-bindings", remedy="pip install 'stamp-deploy[gpu]'"
        ) from error
    return runtime
