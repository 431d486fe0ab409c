"""A worker whose engine takes as long as a device would, without using the CPU: a stand-in for a GPU.

Used by bench_batch.py to measure overlap on machines without a GPU: everything but the engine is real. The
engine answers each batch after N / rate seconds, one batch after the other, as a device queue would.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.batch.workers.steps import InferSteps
from stamp_deploy.batch.workers.worker import main
from stamp_deploy.bundle import Bundle
from stamp_deploy.engine.base import BatchedEngine, shapes_of
from stamp_deploy.engine.interface import EngineInfo, EngineOutput


class DeviceEngine(BatchedEngine):
    """Sleeps for the time that a device of ``rate`` tiles/s would take; its scores are zeros.

    Two batches are in flight, as with the engines of a GPU.
    """

    depth = 2

    def __init__(self, rate: float, bundle: Bundle, batch: int) -> None:
        info = EngineInfo("stand-in", "1", f"sleeps, {rate:g} tiles/s", "none", "asked for by the bench")
        super().__init__(info, **shapes_of(bundle), batch=batch)
        self._rate = rate
        self._free_at = 0.0

    def _submit(self, piece: NDArray[np.uint8]) -> tuple[float, int]:
        self._free_at = max(time.perf_counter(), self._free_at) + len(piece) / self._rate
        return self._free_at, len(piece)

    def _collect(self, ticket: tuple[float, int]) -> EngineOutput:
        done_at, count = ticket
        time.sleep(max(0.0, done_at - time.perf_counter()))
        return EngineOutput(*(np.zeros((count, n), np.float32) for n in self._widths.values()))


class DeviceSteps(InferSteps):
    """The real steps with the stand-in engine."""

    def start(self, config: dict[str, Any]) -> None:
        self._rate = config.get("device_tiles_per_s")
        super().start(config)

    def load(self) -> dict[str, Any]:
        started = super().load()
        if self._rate is not None and self.bundle is not None:
            self.engine.close()
            self.engine = DeviceEngine(self._rate, self.bundle, self.options.batch)
        return started


if __name__ == "__main__":
    main(DeviceSteps())
