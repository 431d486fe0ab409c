"""The engine onnxruntime-cuda on a machine without CUDA."""

from __future__ import annotations

from stamp_deploy.engine.onnxruntime_cuda import OnnxRuntimeCudaEngine


class BoundOnCpu(OnnxRuntimeCudaEngine):
    """The CUDA engine's own code, with buffers and kernels of the CPU provider."""

    name, provider, memory = "bound-cpu", "CPUExecutionProvider", "cpu"
