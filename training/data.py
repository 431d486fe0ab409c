"""Batches of tiles with their targets, drawn from the mapped cohort or from its shards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .cohort.shards import ShardedTiles
from .config import TrainConfig
from .epoch_plan import Rows, plan_epoch
from .sections import TrainSection
from .shard_buffer import ShardBuffer, shard_rows
from .shard_plan import OPEN, plan_shards
from .varied_tiles import FloatBuffers, Piece, varied_tiles


@dataclass(eq=False)
class Batch:
    """Tensors of one step: `tiles` normalised float32 [n, 3, T, T], or kept views; `target` [n, P]; `mask` bool [n, P];
    `slide` int64 [n], the section's place in the list; `genes` [n, G]. Of kept views also `frozen` [n, D], embeddings
    of the frozen model; where a step sees one field of view, `field`, which one. `tables`: as `TrainSection.gather`."""

    tiles: Tensor
    target: Tensor
    mask: Tensor
    slide: Tensor
    genes: Tensor
    frozen: Tensor | None = None
    field: Tensor | None = None
    tables: dict[str, Tensor] = dataclass_field(default_factory=dict)

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        out = replace(self, tables={k: t.to(device, non_blocking=True) for k, t in self.tables.items()})
        for name in ("tiles", "target", "mask", "slide", "genes", "frozen", "field"):
            tensor = getattr(self, name)
            setattr(out, name, None if tensor is None else tensor.to(device, non_blocking=True))
        return out

    def fields(
        self,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, dict[str, Tensor]]:
        """The tensors, in order."""
        return self.tiles, self.target, self.mask, self.slide, self.genes, self.frozen, self.field, self.tables


def batch_of(tiles: Tensor, sections: Sequence[TrainSection], rows: Rows) -> Batch:
    """The tiles of these spots with what is known of them."""
    picked = [(i, sections[i], index) for i, index in rows]
    tables = [s.gather(index) for _, s, index in picked]
    return Batch(
        tiles,
        _joined([s.target[index] for _, s, index in picked]),
        _joined([np.broadcast_to(s.mask, (len(index), len(s.mask))) for _, s, index in picked]),
        _joined([np.full(len(index), i, np.int64) for i, _, index in picked]),
        _joined([s.genes[index] for _, s, index in picked]),
        tables={name: _joined([part[name] for part in tables]) for name in tables[0]},
    )


def _joined(parts: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(parts)))


def planned(sections: Sequence[TrainSection], config: TrainConfig, epoch: int) -> list[Rows]:
    """The batches of an epoch of a run: `plan_epoch` with the config's sizes, its chance from (seed, epoch)."""
    rng = np.random.default_rng([config.seed, epoch])
    sizes = [len(s.target) for s in sections]
    return plan_epoch(sizes, config.batch_slides, config.batch_spots, rng, balanced_by(sections, config))


def balanced_by(sections: Sequence[TrainSection], config: TrainConfig) -> list[str] | None:
    """What each section counts as where the config balances."""
    return [str(getattr(s.sample, config.balance)) for s in sections] if config.balance else None


class Batches(ABC):
    """Batches of an epoch. All chance follows from (seed, epoch, batch), so a run that was killed goes on with the same
    batches.

    Parameters
    ----------
    sections : sequence of TrainSection
    config : TrainConfig
    rank, world : int
        Which process of how many: each plans the same epoch and takes every `world`-th batch.
    """

    def __init__(self, sections: Sequence[TrainSection], config: TrainConfig, *, rank: int = 0, world: int = 1) -> None:
        self.sections, self.config, self.rank, self.world = sections, config, rank, world

    def batches_per_epoch(self) -> int:
        """The same for every process."""
        return len(planned(self.sections, self.config, 0)) // self.world or 1

    def mine(self, epoch: int) -> list[Rows]:
        """What this process has of an epoch's batches."""
        plan = planned(self.sections, self.config, epoch)
        return [plan[(i * self.world + self.rank) % len(plan)] for i in range(self.batches_per_epoch())]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start` and on of an epoch."""
        for number, rows in enumerate(self.mine(epoch)[start:], start):
            yield self.make(rows, epoch, number)

    @abstractmethod
    def make(self, rows: Rows, epoch: int, number: int) -> Batch:
        """One batch."""


class Loader(Batches):
    """Augmented batches of tiles, prepared ahead in threads: the compiled core does the work, without the GIL.

    Parameters
    ----------
    tile_px : int
        Of the model.
    sections, config, rank, world
        As `Batches`.
    threads : int
        Batches prepared at once, and ahead.
    pinned : bool
        In page-locked memory, for a GPU.
    """

    def __init__(
        self,
        sections: Sequence[TrainSection],
        config: TrainConfig,
        tile_px: int,
        mean: Sequence[float],
        std: Sequence[float],
        mpp: float,
        *,
        rank: int = 0,
        world: int = 1,
        threads: int = 1,
        pinned: bool = False,
    ) -> None:
        super().__init__(sections, config, rank=rank, world=world)
        self.tile_px, self.mean, self.std = tile_px, mean, std
        self.reach = round(config.shift_um / mpp)
        self.threads = threads
        self._tiles = [s.tiles for s in sections]
        self._buffer: ShardBuffer | None = None
        if any(isinstance(t, ShardedTiles) for t in self._tiles):
            self._buffer = ShardBuffer(self._tiles, config.batch_spots, config.batch_slides * (OPEN + threads))
        self._buffers = FloatBuffers(pinned=pinned)

    def batches_per_epoch(self) -> int:
        """The same for every process and every epoch; of shards, as many as the first epoch has."""
        if self._buffer is None:
            return super().batches_per_epoch()
        return max(map(len, self.planned_shards(0)))

    def mine(self, epoch: int) -> list[Rows]:
        """What this process has of an epoch's batches; of shards, its own shards."""
        if self._buffer is None:
            return super().mine(epoch)
        own = self.planned_shards(epoch)[self.rank]
        return [own[i % len(own)] for i in range(self.batches_per_epoch())]

    def planned_shards(self, epoch: int) -> list[list[Rows]]:
        """The batches of each process, `shard_plan.plan_shards` with the config's sizes."""
        config, rng = self.config, np.random.default_rng([self.config.seed, epoch])
        shards = [shard_rows(tiles, rng) for tiles in self._tiles]
        groups = balanced_by(self.sections, config)
        return plan_shards(shards, config.batch_slides, config.batch_spots, rng, self.world, groups)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start` and on of an epoch."""
        todo = iter(list(enumerate(self.mine(epoch)))[start:])
        with ThreadPoolExecutor(self.threads, thread_name_prefix="loader") as pool:
            ahead = deque(pool.submit(self.make, rows, epoch, i) for i, rows in islice(todo, self.threads))
            while ahead:
                current = ahead.popleft().result()
                ahead.extend(pool.submit(self.make, rows, epoch, i) for i, rows in islice(todo, 1))
                yield current
                del current  # its memory is used again

    def make(self, rows: Rows, epoch: int, number: int) -> Batch:
        """One augmented batch."""
        rng = np.random.default_rng([self.config.seed, epoch, number, self.rank, 1])
        rows = [(i, np.sort(index)) for i, index in rows]  # in file order: the pages of the map are read once
        pieces = [self._piece(i, index) for i, index in rows]
        tiles = varied_tiles(
            pieces, self.tile_px, self.mean, self.std, rng, reach=self.reach, hed_jitter=self.config.hed_jitter,
            flips=self.config.turns_tiles, buffers=self._buffers,
        )  # fmt: skip
        made = batch_of(tiles, self.sections, rows)
        if self.config.field_steps == "one":
            made.field = torch.tensor(int(rng.integers(len(self.config.fields_um))))
        return made

    def _piece(self, section: int, rows: NDArray[np.int64]) -> Piece:
        tiles = self._tiles[section]
        if isinstance(tiles, ShardedTiles):
            assert self._buffer is not None
            return self._buffer.take(section, rows), np.arange(len(rows))
        return tiles, rows
