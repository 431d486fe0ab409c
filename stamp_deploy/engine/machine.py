"""What can change an engine's numbers or its speed on this machine: libraries, processor, GPUs and their driver.

Everything that the cache keeps is keyed by it, so that nothing outlives an update.
"""

from __future__ import annotations

import ctypes
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ..system.processor import this_processor
from .cuda import Gpu, visible_gpus

_PACKAGES = re.compile(r"(onnx|onnxruntime.*|openvino|tensorrt.*|cuda[-_].*|nvidia[-_].*|numpy|stamp[-_]deploy)", re.I)
_SYSTEM_LIBRARIES = {"libcudnn.so.9": "cudnnGetVersion", "libcublasLt.so.13": "cublasLtGetVersion"}
"""Libraries that images bring without a package, and the function without arguments that gives their version."""


def machine_facts() -> dict[str, Any]:
    """Everything, as JSON values."""
    processor = this_processor()
    gpus = visible_gpus()
    return {
        "packages": package_versions(),
        "processor": [processor.name, sorted(processor.flags)],
        "gpus": [gpu_facts(gpu) for gpu in gpus],
        "libraries": library_versions() if gpus else {},
    }


def gpu_facts(gpu: Gpu) -> list[str]:
    """What a compiled engine depends on: name and capability of the device, CUDA version and build of its driver."""
    return [gpu.name, gpu.capability, gpu.driver, driver_build()]


@cache
def package_versions() -> dict[str, str]:
    """Versions of the installed packages that compute, or bring what computes."""
    found = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name and _PACKAGES.fullmatch(name):
            found[name.lower()] = distribution.version
    return found


@cache
def driver_build(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The kernel driver's own words for its build; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
    except (OSError, IndexError):
        return ""


@cache
def library_versions() -> dict[str, int]:
    """Versions of cuDNN and cuBLAS as the loader finds them; those that it does not find are left out."""
    found = {}
    for name, function in _SYSTEM_LIBRARIES.items():
        try:
            call = getattr(ctypes.CDLL(name), function)
        except (OSError, AttributeError):
            continue
        call.restype = ctypes.c_size_t
        found[name] = int(call())
    return found
