"""The Engine protocol: what every compiled encoder, on whatever device, looks like to the rest.

An engine knows tensors, never slides. It is handed uint8 tiles and answers with float32 arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EngineOutput:
    """What the encoder says of N tiles.

    Attributes
    ----------
    embedding : float32 [N, D]
        Tile embeddings.
    pathways : float32 [N, P]
        Pathway scores, in the order of the bundle's ``pathways``.
    """

    embedding: NDArray[np.float32]
    pathways: NDArray[np.float32]


@dataclass(frozen=True)
class EngineInfo:
    """Which engine ran, for the result's provenance.

    ``why`` says in one sentence how the engine was chosen ("asked for", "fastest that passed
    parity: ...").
    """

    name: str
    version: str
    device: str
    precision: str
    why: str = ""
    details: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """A loaded encoder.

    ``run`` takes uint8 [N, T, T, 3] (RGB, NHWC, C-contiguous), 1 <= N <= ``max_batch``, and may be
    called from one thread at a time. ``stream`` takes an iterable of such batches and yields one
    output a batch, in order; engines with asynchronous queues overlap transfers and compute there.
    """

    @property
    def info(self) -> EngineInfo: ...

    @property
    def max_batch(self) -> int: ...

    def run(self, tiles: NDArray[np.uint8]) -> EngineOutput: ...

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[EngineOutput]: ...

    def close(self) -> None: ...
