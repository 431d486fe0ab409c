"""`BatchedEngine`: what every compiled encoder, on whatever device, has in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, EngineError
from ..system import log
from .interface import OUTPUTS, EngineInfo, EngineOutput

if TYPE_CHECKING:
    from ..bundle import Bundle


class OutOfMemory(Exception):
    """The device cannot hold a batch of the present size. Only `BatchedEngine` catches it."""


Ticket = tuple[Any, int]
"""What `_submit` gave for a piece, and how many tiles the piece holds."""


class BatchedEngine(ABC):
    """An engine that works through a queue of at most `depth` pieces of at most `chunk` tiles.

    A subclass gives `_submit` (hand one piece over, return a ticket), `_collect` (wait for a ticket) and
    `_allocate` (make room for pieces of `chunk` tiles). Submitting and allocating may raise `OutOfMemory`: the
    piece size is then halved, the batch is done again, and `info.details` says so. `max_batch` stays
    what was asked for.
    """

    depth = 1
    """Pieces in flight at once: 1 for engines that answer in `_submit` itself."""
    accepted = False
    """Whether parity has accepted this engine on this machine; see `verdict.accept`."""
    compiled = ""
    """What this machine made of the encoder (a plan, a converted graph), as a hash; empty where it runs as shipped."""
    remembers = True
    """Whether a verdict of parity holds until something that this machine can see changes."""
    reopen: Callable[[Bundle], BatchedEngine] | None = None
    """Opens the same engine, with the same settings, over another bundle."""
    gate: Callable[[BatchedEngine], object] | None = None
    """Called when the engine had to be compiled again while it scores; raises where the outcome fails parity."""

    def __init__(
        self,
        info: EngineInfo,
        *,
        tile_px: int,
        embedding_dim: int,
        pathways: int,
        batch: int,
        global_scores: bool = False,
    ) -> None:
        self._info = replace(info, details={**info.details, "batch": str(batch)})
        self._tile_px = tile_px
        self._widths = {"embedding": embedding_dim, "pathways": pathways}
        if global_scores:
            self._widths["pathways_global"] = pathways
        self._max_batch = self._chunk = batch
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        """Name, version, device, precision, and why."""
        return self._info

    @property
    def max_batch(self) -> int:
        """The largest N that `run` takes."""
        return self._max_batch

    @property
    def piece(self) -> int:
        """How many tiles the device takes at once: `max_batch`, or less where memory is short."""
        return self._chunk

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of the tiles of a piece, and of each output."""
        return {
            "tiles": ((self._chunk, self._tile_px, self._tile_px, 3), np.uint8),
            **{name: ((self._chunk, width), np.float32) for name, width in self._widths.items()},
        }

    def explain(self, why: str, **details: str) -> None:
        """State how this engine was chosen."""
        self._info = replace(self._info, why=why, details={**self._info.details, **details})

    def accept(self) -> None:
        """Parity passed on this machine; remember it where something was compiled."""
        self.accepted = True

    def reject(self) -> bool:
        """Parity failed on this machine; throw away what was compiled. The engine is closed before.

        True where the engine, opened again, would run the encoder in another form, which may pass.
        """
        return False

    def take_weights(self, bundle: Bundle) -> bool:
        """Put another adapter's weights into what is loaded; False where the engine must be opened anew for them."""
        return False

    def run(self, tiles: NDArray[np.uint8]) -> EngineOutput:
        """Score uint8 [N, T, T, 3], 1 <= N <= `max_batch`.

        Raises
        ------
        EngineError
            The array is of another kind, the engine is closed, or the device fails.
        """
        return next(iter(self.stream([tiles])))

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[EngineOutput]:
        """Score batch after batch, in order; the next batch is asked for while earlier ones are computed.

        A batch's array may be overwritten once the next batch has been asked for.
        """
        queue: deque[list[Ticket]] = deque()  # the tickets of each batch in flight
        try:
            for tiles in batches:
                self._check(tiles)
                yield from self._enqueue(queue, tiles)
            while queue:
                yield self._finish(queue)
        finally:
            self._abandon(queue)

    def _enqueue(self, queue: deque[list[Ticket]], tiles: NDArray[np.uint8]) -> Iterator[EngineOutput]:
        """Hand one batch over, after yielding the outputs that must leave the queue first."""
        pieces = self._pieces(tiles)
        while queue and sum(map(len, queue)) + len(pieces) > self.depth:
            yield self._finish(queue)
        if len(pieces) > self.depth:
            yield self._one_by_one(tiles)
            return
        tickets: list[Ticket] = []
        try:
            for piece in pieces:
                tickets.append((self._submit(piece), len(piece)))
        except OutOfMemory as error:
            while queue:  # those before it are in the device already and need no new memory
                yield self._finish(queue)
            self._abandon(deque([tickets]))
            self._shrink(error)
            yield self._one_by_one(tiles)
            return
        queue.append(tickets)
        if self.depth == 1:
            yield self._finish(queue)

    def close(self) -> None:
        """Release the device; the engine cannot be used afterwards. Closing twice is allowed.

        Releasing is best effort: after a fault the device may refuse, and the fault is what must be told.
        """
        if not self._closed:
            self._closed = True
            try:
                self._release()
            except (EngineError, OutOfMemory) as error:
                log.event("device not released", level=logging.WARNING, engine=self._info.name, cause=str(error)[:200])

    def _finish(self, queue: deque[list[Ticket]]) -> EngineOutput:
        return EngineOutput.join([self._answer(*ticket) for ticket in queue.popleft()])

    def _answer(self, ticket: Any, count: int) -> EngineOutput:
        """Collect a piece of `count` tiles, and check that the encoder answered for each of them.

        Raises
        ------
        BundleError
            The encoder gives other shapes than it declares: rows would be taken for those of other tiles.
        """
        output = self._collect(ticket)
        arrays = {name: getattr(output, name) for name in OUTPUTS}
        found = {name: values.shape for name, values in arrays.items() if values is not None}
        wanted = {name: (count, width) for name, width in self._widths.items()}
        if found != wanted:
            raise BundleError(
                f"the encoder answers {count} tiles with {_shown(found)} in {self._info.name}, and should with "
                f"{_shown(wanted)}",
                remedy="export the bundle again",
            )
        return output

    def _abandon(self, queue: deque[list[Ticket]]) -> None:
        """Wait for what is in flight, and forget it; what fails there follows from an error already told."""
        while queue:
            for ticket, _ in queue.popleft():
                with suppress(EngineError, OutOfMemory):
                    self._collect(ticket)

    def _one_by_one(self, tiles: NDArray[np.uint8]) -> EngineOutput:
        while True:
            try:
                parts = [self._answer(self._submit(piece), len(piece)) for piece in self._pieces(tiles)]
                return EngineOutput.join(parts)
            except OutOfMemory as error:
                self._shrink(error)

    def _pieces(self, tiles: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        return [tiles[i : i + self._chunk] for i in range(0, len(tiles), self._chunk)]

    def _shrink(self, error: OutOfMemory) -> None:
        """Halve the piece until the device can hold it.

        Raises
        ------
        EngineError
            One tile alone does not fit.
        ParityError
            What was compiled for the smaller piece does not pass the gate.
        """
        before = self.compiled
        while True:
            if self._chunk == 1:
                raise EngineError(
                    f"{self._info.name} runs out of memory with a single tile: {error}",
                    remedy="free memory on the device, or use --engine onnxruntime",
                ) from error
            self._chunk = (self._chunk + 1) // 2
            try:
                self._allocate()
                break
            except OutOfMemory as again:
                error = again
        note = f"halved from {self._max_batch} to {self._chunk}: out of memory"
        self._info = replace(self._info, details={**self._info.details, "batch": note})
        log.event("batch halved", engine=self._info.name, device=self._info.device, batch=self._chunk)
        if self.gate is not None and (not self.accepted or self.compiled != before):
            self.gate(self)

    def _check(self, tiles: NDArray[np.uint8]) -> None:
        if self._closed:
            raise EngineError("the engine is closed")
        good = tiles.dtype == np.uint8 and tiles.ndim == 4 and tiles.shape[1:] == (self._tile_px, self._tile_px, 3)
        if not good or not 1 <= len(tiles) <= self._max_batch:
            raise EngineError(
                f"the engine was handed {tiles.dtype} {tiles.shape} and takes uint8 "
                f"(1..{self._max_batch}, {self._tile_px}, {self._tile_px}, 3)"
            )

    @abstractmethod
    def _submit(self, piece: NDArray[np.uint8]) -> Any:
        """Start one piece of at most `_chunk` tiles."""

    @abstractmethod
    def _collect(self, ticket: Any) -> EngineOutput:
        """Wait for a piece; its arrays belong to the caller."""

    def _allocate(self) -> None:  # noqa: B027  engines without buffers of their own have nothing to do
        """Make room for pieces of `_chunk` tiles; clears `accepted` where that means compiling again."""

    def _release(self) -> None:  # noqa: B027
        """Give everything back."""


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{_MANY.get(name, name)} {shape}" for name, shape in shapes.items())


_MANY = {"embedding": "embeddings", "pathways_global": "global pathways"}


def shapes_of(bundle: Bundle) -> dict[str, Any]:
    """What `BatchedEngine` wants to know of a bundle."""
    return {
        "tile_px": bundle.tile_px,
        "embedding_dim": bundle.embedding_dim,
        "pathways": len(bundle.pathways),
        "global_scores": bundle.has_global_scores,
    }
