"""The Engine protocol: what a loaded encoder can do, what it answers, and what it says of itself.

An engine knows tensors, never slides. It is handed uint8 tiles and answers with float32 arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

OUTPUTS = ("embedding", "pathways", "pathways_global")
"""What an encoder gives, in this order; older bundles lack the last."""


@dataclass(frozen=True)
class EngineOutput:
    """What the encoder says about N tiles.

    Attributes
    ----------
    embedding : float32 [N, D]
        Tile embeddings.
    pathways : float32 [N, P]
        Pathway scores, in the order of the bundle's ``pathways``.
    pathways_global : float32 [N, P] or None
        The read-out that is comparable across slides; None where the bundle has none.
    """

    embedding: NDArray[np.float32]
    pathways: NDArray[np.float32]
    pathways_global: NDArray[np.float32] | None = None

    @classmethod
    def join(cls, parts: Sequence[EngineOutput]) -> EngineOutput:
        """The answers for several batches, one after the other."""
        if len(parts) == 1:
            return parts[0]
        shared = [part.pathways_global for part in parts if part.pathways_global is not None]
        return cls(
            np.concatenate([part.embedding for part in parts]),
            np.concatenate([part.pathways for part in parts]),
            np.concatenate(shared) if shared else None,
        )


@dataclass(frozen=True)
class EngineInfo:
    """Which engine ran, for the result's provenance.

    ``why`` says in one sentence how the engine was chosen ("asked for", "fastest of 2 that passed
    parity: ..."). ``details`` holds what else can matter: threads, batch, driver, plan.
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
    output per batch, in order; engines with asynchronous queues overlap transfers and compute there.
    """

    @property
    def info(self) -> EngineInfo: ...

    @property
    def max_batch(self) -> int: ...

    def run(self, tiles: NDArray[np.uint8]) -> EngineOutput: ...

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[EngineOutput]: ...

    def close(self) -> None: ...
