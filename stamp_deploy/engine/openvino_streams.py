"""How many streams OpenVINO works in: parts of a batch side by side, or the whole batch with every thread.

On a processor of few cores two parts side by side were 4 % (fp32) and 16 % (int8) faster, bit for bit the same;
elsewhere one stream may be. So both are timed, once per machine, bundle and batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..system.processor import usable_cores
from .cache import cache_folder, key_of, read_entry, write_entry
from .machine import machine_facts

if TYPE_CHECKING:
    from pathlib import Path

    from ..bundle import Bundle

SMALLEST_PART = 8
"""Tiles; smaller parts lose more in each product than streams gain."""
MARGIN = 1.03
"""One stream stays unless more are this much faster: noise must not decide."""
ROUNDS = 3
SECONDS = 3.0
"""After this long no new round of timing begins."""


class Streams:
    """A network compiled for some streams, each with a request of its own.

    Parameters
    ----------
    core : openvino.Core
    network : openvino.Model
        With an input ``tiles``, uint8 [N, T, T, 3].
    settings : dict
        Properties of the CPU plugin.
    count : int
        Streams, which share the threads.
    """

    def __init__(self, core: Any, network: Any, settings: dict[str, Any], count: int) -> None:
        hint = "LATENCY" if count == 1 else "THROUGHPUT"
        compiled = core.compile_model(network, "CPU", {**settings, "PERFORMANCE_HINT": hint, "NUM_STREAMS": count})
        self.count = count
        self._requests = [compiled.create_infer_request() for _ in range(count)]

    def run(self, tiles: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """The outputs of some tiles, in the order of the tiles; each is float32 [N, its width].

        Raises
        ------
        RuntimeError
            OpenVINO fails in a part. No part is under way any more.
        """
        split = np.array_split(tiles, min(self.count, -(-len(tiles) // SMALLEST_PART)))
        parts = [np.ascontiguousarray(part) for part in split]
        busy, failed = self._requests[: len(parts)], list[RuntimeError]()

        def attempt(step: Callable[[], object]) -> None:
            try:
                step()
            except RuntimeError as error:
                failed.append(error)

        for request, part in zip(busy, parts, strict=True):
            attempt(partial(request.start_async, {"tiles": part}, share_inputs=True))
        for request in busy:  # all of them: the parts are the caller's memory
            attempt(request.wait)
        if failed:
            raise failed[0]
        return [
            np.concatenate([request.get_tensor(name).data for request in busy], dtype=np.float32) for name in outputs
        ]


def stream_counts(batch: int, threads: int) -> tuple[int, ...]:
    """Numbers of streams worth timing: one, and as many as have `SMALLEST_PART` tiles of a full batch and a thread.

    Parameters
    ----------
    batch : int
        Tiles of a full batch.
    threads : int
        Threads that all streams share.
    """
    many = min(threads, batch // SMALLEST_PART)
    return (1, many) if many > 1 else (1,)


def fastest_count(runs: dict[int, Callable[[NDArray[np.uint8]], object]], tiles: NDArray[np.uint8]) -> int:
    """The number of streams whose run is fastest, timed in turn; the first stays unless another is clearly faster."""
    for count, run in runs.items():
        run(tiles[: SMALLEST_PART * count])  # memory is taken at the first run
    taken: dict[int, list[float]] = {count: [] for count in runs}
    start = time.perf_counter()
    for number in range(ROUNDS):
        if number and time.perf_counter() - start > SECONDS:
            break
        for count, run in runs.items():
            clock = time.perf_counter()
            run(tiles)
            taken[count].append(time.perf_counter() - clock)
    return choose_count({count: statistics.median(seconds) for count, seconds in taken.items()})


def choose_count(seconds: dict[int, float]) -> int:
    """The count of the least seconds; the first unless another is faster by `MARGIN`."""
    first, best = next(iter(seconds)), min(seconds, key=lambda count: seconds[count])
    return best if seconds[first] > MARGIN * seconds[best] else first


def remembered_count(
    bundle: Bundle, precision: str, batch: int, threads: int, counts: Sequence[int], measure: Callable[[], int]
) -> int:
    """What `measure` says, asked once for all that could change it; a cache that cannot be used is asked every time."""
    if len(counts) == 1:
        return counts[0]
    path = _entry(bundle, precision, batch, threads, counts)
    entry = read_entry(path) if path is not None else None
    if entry is not None and entry.get("streams") in counts:
        return int(entry["streams"])
    count = measure()
    if path is not None:
        write_entry(path, {"streams": count, "of": list(counts), "chosen_unix": time.time()})
    return count


def _entry(bundle: Bundle, precision: str, batch: int, threads: int, counts: Sequence[int]) -> Path | None:
    folder = cache_folder("streams", "the number of streams")
    if folder is None:
        return None
    encoder = (bundle.sha256, bundle.encoder_file, precision)
    return folder / f"{key_of(encoder, batch, threads, list(counts), usable_cores(), machine_facts())}.json"
