"""TensorRT-RTX compiles its kernels when a context is made: at once, not while tiles wait, and kept beside the plan."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..atomic import write_bytes_atomic
from ..errors import DiskError
from ..system import log
from .cache import read_entry, write_entry
from .tensorrt_plan import is_rtx

KERNELS_FILE, KERNELS_FACTS = "kernels.bin", "kernels.json"


class ContextMaker:
    """Makes the execution contexts of one plan.

    Parameters
    ----------
    trt : module
        tensorrt or tensorrt_rtx.
    engine : object
        The plan, deserialised.
    folder : Path
        Where the plan lies; TensorRT-RTX's compiled kernels are kept beside it, under their own hash.
    """

    def __init__(self, trt: Any, engine: Any, folder: Path) -> None:
        self._trt, self._engine, self._folder = trt, engine, folder
        self._config: Any = None
        self._kernels: Any = None
        self._known = ""
        if not is_rtx(trt):
            return
        self._config = engine.create_runtime_config()
        self._config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._kernels = self._config.create_runtime_cache()
        data = self._read()
        if data and not self._kernels.deserialize(data):
            log.event("compiled kernels thrown away", level=logging.WARNING)
            self._known = ""
        self._config.set_runtime_cache(self._kernels)

    def make(self) -> Any:
        """A context; None where memory is short. It marks no layers for profilers, which costs time at each launch."""
        given = () if self._config is None else (self._config,)
        context = self._engine.create_execution_context(*given)
        if context is not None:
            context.nvtx_verbosity = self._trt.ProfilingVerbosity.NONE
        return context

    def keep_kernels(self) -> None:
        """Write what was compiled; a cache that cannot be written is not an error."""
        if self._kernels is None:
            return
        data = bytes(self._kernels.serialize() or b"")
        digest = sha256(data).hexdigest()
        if not data or digest == self._known or not self._folder.is_dir():
            return
        try:
            write_bytes_atomic(self._folder / KERNELS_FILE, data)
        except (OSError, DiskError):
            log.event("compiled kernels not kept", level=logging.WARNING)
            return
        write_entry(self._folder / KERNELS_FACTS, {"sha256": digest})
        self._known = digest

    def _read(self) -> bytes:
        """The kernels of an earlier run, if they are as they were written."""
        facts = read_entry(self._folder / KERNELS_FACTS) or {}
        try:
            data = (self._folder / KERNELS_FILE).read_bytes()
        except OSError:
            return b""
        if sha256(data).hexdigest() != facts.get("sha256"):
            return b""
        self._known = str(facts["sha256"])
        return data
