"""A CUDA runtime made of numpy and a TensorRT made of ONNX Runtime, for the TensorRT engine's own logic.

Work is not done when it is queued but when its stream is waited for, as on a device: code that reads a buffer too
early, or overwrites one too late, gives wrong numbers here too. Everything allocated is counted.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime


class Code(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900


class Stream:
    current: FakeRuntime

    def __init__(self, runtime: FakeRuntime, number: int) -> None:
        self.runtime, self.number = runtime, number
        self.queue: list[Any] = []
        self.recording: list[Any] | None = None

    def __int__(self) -> int:
        return self.number

    def do(self, work: Any) -> None:
        (self.queue if self.recording is None else self.recording).append(work)


class FakeRuntime:
    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, device_bytes: int = 1 << 30, capturable: bool = True, devices: int = 1, major: int = 9) -> None:
        self.free_bytes, self.capturable, self.devices, self.major = device_bytes, capturable, devices, major
        self.thread = threading.local()
        self.made_current: list[int] = []
        self.lies_on: list[int] = []
        """The device of each buffer and stream, in the order in which they were made."""
        self.broken = False
        """After a fault every call fails with the same error, as on a real device."""
        self.streams_left = 1000
        self.memory: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs = 0
        self.launches: list[int] = []
        FakeRuntime.latest = self

    latest: FakeRuntime

    def leaks(self) -> str:
        left = {"device": len(self.memory), "pinned": len(self.pinned), "streams": len(self.streams)}
        left["graphs"] = self.graphs
        return ", ".join(f"{count} {what}" for what, count in left.items() if count)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("cudaM", "cudaF", "cudaStreamS", "cudaStreamC", "cudaStreamD", "cudaGraph")):
            value = object.__getattribute__(self, name)
            if callable(value) and self.broken:
                return lambda *arguments: (Code.cudaErrorIllegalAddress, None)
            return value
        return object.__getattribute__(self, name)

    def cudaGetDeviceCount(self):
        return Code.cudaSuccess, self.devices

    def cudaSetDevice(self, device):
        self.thread.device = device
        self.made_current.append(device)
        return (Code.cudaSuccess,)

    def placed(self):
        self.lies_on.append(getattr(self.thread, "device", 0))

    def cudaDriverGetVersion(self):
        return Code.cudaSuccess, 13000

    def cudaGetDeviceProperties(self, device):
        return Code.cudaSuccess, SimpleNamespace(name=b"Numpy\0\0", major=self.major, minor=0, totalGlobalMem=1 << 30)

    def cudaMalloc(self, size):
        if size > self.free_bytes:
            return Code.cudaErrorMemoryAllocation, None
        self.placed()
        self.free_bytes -= size
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return Code.cudaSuccess, ctypes.addressof(buffer)

    def cudaFree(self, address):
        self.free_bytes += len(self.memory.pop(address))
        return (Code.cudaSuccess,)

    def cudaMallocHost(self, size):
        self.placed()
        buffer = ctypes.create_string_buffer(size)
        self.pinned[ctypes.addressof(buffer)] = buffer
        return Code.cudaSuccess, ctypes.addressof(buffer)

    def cudaFreeHost(self, address):
        del self.pinned[address]
        return (Code.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags):
        if self.streams_left == 0:
            return Code.cudaErrorIllegalAddress, None
        self.streams_left -= 1
        self.placed()
        number = max(self.streams, default=0) + 1
        self.streams[number] = Stream(self, number)
        self.launches.append(0)
        return Code.cudaSuccess, self.streams[number]

    def cudaStreamDestroy(self, stream):
        del self.streams[stream.number]
        return (Code.cudaSuccess,)

    def cudaStreamSynchronize(self, stream):
        while stream.queue:
            stream.queue.pop(0)()
        return (Code.cudaSuccess,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        stream.do(lambda: ctypes.memmove(target, source, size))
        return (Code.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        stream.recording = []
        return (Code.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        work, stream.recording = stream.recording, None
        return Code.cudaSuccess, work

    def cudaGraphInstantiate(self, graph, flags):
        self.graphs += 1
        return Code.cudaSuccess, graph

    def cudaGraphDestroy(self, graph):
        return (Code.cudaSuccess,)

    def cudaGraphLaunch(self, graph, stream):
        self.launches[stream.number - 1] += 1
        stream.queue.extend(graph)
        return (Code.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph):
        self.graphs -= 1
        return (Code.cudaSuccess,)


class Context:
    def __init__(self, model: bytes, error: float, config: Any = None) -> None:
        self.config = config
        if config is not None:
            config.cache.compile()
        if _MODULE.capturable is not None:
            self.is_stream_capturable = lambda number: _MODULE.capturable
        self.load(model)
        self.address: dict[str, int] = {}
        self.error = error

    def load(self, model: bytes) -> None:
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.address[name] = address
        return name in ("tiles", *(output.name for output in self.session.get_outputs()))

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name == "tiles":
            return self.shape
        side = {output.name: output.shape[1] for output in self.session.get_outputs()}[name]
        return (self.shape[0], side)

    def execute_async_v3(self, number: int) -> bool:
        stream = FakeRuntime.latest.streams[number]
        if stream.recording is not None and not FakeRuntime.latest.capturable:
            return False
        stream.do(lambda: self.compute(number))
        return True

    def compute(self, number: int) -> None:
        size = int(np.prod(self.shape))
        tiles = np.frombuffer(ctypes.string_at(self.address["tiles"], size), np.uint8).reshape(self.shape)
        names = [output.name for output in self.session.get_outputs()]
        for name, values in zip(names, self.session.run(None, {"tiles": tiles}), strict=True):
            wrong = values + self.error * np.random.default_rng(0).normal(size=values.shape)
            if number in _MODULE.wrong_streams:
                wrong[_MODULE.wrong_rows] *= -1
            data = np.ascontiguousarray(wrong if self.error or _MODULE.wrong_streams else values, np.float32)
            ctypes.memmove(self.address[name], data.ctypes.data, data.nbytes)


class Kernels:
    """TensorRT-RTX's runtime cache: what was compiled, and how often that had to be done."""

    def __init__(self) -> None:
        self.data = b""

    def deserialize(self, data: bytes) -> bool:
        self.data = data if data.startswith(b"kernels") else b""
        return bool(self.data)

    def serialize(self) -> bytes:
        return self.data

    def compile(self) -> None:
        if not self.data:
            _MODULE.kernels.append("compiled")
            self.data = b"kernels of the plan"


class RuntimeConfig:
    def __init__(self) -> None:
        self.cache = Kernels()
        self.dynamic_shapes_kernel_specialization_strategy = "lazy"

    def create_runtime_cache(self) -> Kernels:
        return Kernels()

    def set_runtime_cache(self, cache: Kernels) -> bool:
        self.cache = cache
        return True


_MODULE = SimpleNamespace(__name__="tensorrt", __version__="0.fake", builds=[], error=0.0)
_MODULE.flags, _MODULE.capturable, _MODULE.kernels = [], None, []
_MODULE.refits, _MODULE.refuses_refit = [], False
_MODULE.layers = ""
_MODULE.wrong_streams, _MODULE.wrong_rows, _MODULE.gives_nothing = set(), slice(None), []


class Plan:
    """A deserialised plan, whose contexts take other weights when it is refitted."""

    create_runtime_config = RuntimeConfig

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.contexts: list[Context] = []

    def create_execution_context(self, config: Any = None) -> Context:
        self.contexts.append(Context(self.model, _MODULE.error, config))
        return self.contexts[-1]


def _whole(path: str) -> bytes:
    """An ONNX file with the data that lies beside it."""
    return bytes(onnx.load(path).SerializeToString())


def fake_tensorrt() -> Any:
    """The one fake module; a plan is the ONNX file, and every build is counted in ``builds``.

    ``error`` is added to every answer; lanes whose stream's number is in ``wrong_streams`` answer ``wrong_rows`` with
    the wrong sign; each text in ``gives_nothing`` is logged once by a plan that does not load; ``layers`` is what a
    build that is asked for details logs of its layers.
    """

    class ILogger:
        ERROR, VERBOSE = 1, 4

    class Flag(IntEnum):
        STRONGLY_TYPED = 1

    class Builder:
        def __init__(self, logger):
            self.logger = logger

        def create_network(self, flags):
            return SimpleNamespace()

        def create_builder_config(self):
            cache = SimpleNamespace(serialize=lambda: b"timings")
            return SimpleNamespace(
                set_memory_pool_limit=lambda *a: None, clear_flag=lambda *a: None,
                add_optimization_profile=lambda *a: None, set_flag=_MODULE.flags.append,
                create_timing_cache=lambda data: cache,
                set_timing_cache=lambda *a: None, get_timing_cache=lambda: cache,
            )  # fmt: skip

        def create_optimization_profile(self):
            return SimpleNamespace(set_shape=lambda *a: None)

        def build_serialized_network(self, network, config):
            if _MODULE.layers and config.profiling_verbosity == "detailed":
                self.logger.log(ILogger.VERBOSE, _MODULE.layers)
            _MODULE.builds.append(hashlib.sha256(network.model).hexdigest())
            return network.model

    class OnnxParser:
        def __init__(self, network, logger):
            self.network = network

        def parse_from_file(self, path):
            self.network.model = _whole(path)
            return True

    class Refitter:
        def __init__(self, engine, logger):
            self.engine = engine

        def get_missing_weights(self):
            return []

        def refit_cuda_engine(self):
            for context in self.engine.contexts:
                context.load(self.engine.model)
            return True

    class OnnxParserRefitter:
        def __init__(self, refitter, logger):
            self.refitter = refitter

        def refit_from_file(self, path):
            if _MODULE.refuses_refit:
                return False
            self.refitter.engine.model = _whole(path)
            _MODULE.refits.append(path)
            return True

    class Runtime:
        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, data):
            if _MODULE.gives_nothing:
                self.logger.log(ILogger.ERROR, _MODULE.gives_nothing.pop(0))
                return None
            return Plan(data)

    _MODULE.ILogger, _MODULE.NetworkDefinitionCreationFlag, _MODULE.Builder = ILogger, Flag, Builder
    _MODULE.OnnxParser, _MODULE.Runtime = OnnxParser, Runtime
    _MODULE.Refitter, _MODULE.OnnxParserRefitter = Refitter, OnnxParserRefitter
    _MODULE.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed", NONE="none")
    _MODULE.MemoryPoolType = SimpleNamespace(WORKSPACE=0)
    _MODULE.BuilderFlag = SimpleNamespace(TF32=0, REFIT="refit", REQUIRE_USER_ALLOCATION="user allocation")
    _MODULE.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    return _MODULE
