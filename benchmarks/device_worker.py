"""A worker whose engine takes as long as a device would, without using the CPU: a stand-in for a GPU.

Used by bench_batch.py to measure overlap on machines without a GPU: everything but the engine is real. The
engine answers each batch after N / rate seconds of sleep, one batch at a time, as a device queue would.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.engine.base import EngineInfo, EngineOutput
from stamp_deploy.worker_child import InferSteps, main


class DeviceEngine:
    """Sleeps for the time that a device of ``rate`` tiles/s would take; its scores are zeros."""

    def __init__(self, rate: float, embedding_dim: int, pathways: int, max_batch: int) -> None:
        self._rate, self._shape, self.max_batch = rate, (embedding_dim, pathways), max_batch
        self.info = EngineInfo("stand-in", "1", f"sleeps, {rate:g} tiles/s", "none", "asked for by the bench")
        self._free_at = 0.0

    def run(self, tiles: NDArray[np.uint8]) -> EngineOutput:
        # Time is kept by a clock that does not drift with the sleeps' own inaccuracy.
        begin = max(time.perf_counter(), self._free_at)
        self._free_at = begin + len(tiles) / self._rate
        time.sleep(max(0.0, self._free_at - time.perf_counter()))
        return EngineOutput(*(np.zeros((len(tiles), n), np.float32) for n in self._shape))

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[EngineOutput]:
        for tiles in batches:
            yield self.run(tiles)

    def close(self) -> None:
        pass


class DeviceSteps(InferSteps):
    """The real steps with the stand-in engine."""

    def start(self, config: dict[str, Any]) -> dict[str, Any]:
        rate = config.pop("device_tiles_per_s", None)
        started = super().start(config)
        if rate is not None and config.get("bundle") is not None:
            self.engine.close()
            self.engine = DeviceEngine(
                rate, self.bundle.embedding_dim, len(self.bundle.pathways), self.options.batch
            )
        return started


if __name__ == "__main__":
    main(DeviceSteps())
