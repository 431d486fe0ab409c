"""The shards that batches are being drawn from: read once from start to end, kept compressed until they are used up."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from .cohort.shard_writer import shard_count
from .cohort.shards import ShardedTiles, Tiles


class ShardBuffer:
    """Whole shards in memory, each until all of its tiles were taken. One for each process; its threads share it.

    Parameters
    ----------
    tiles : sequence of Tiles
        Of each section.
    spots : int
        Rows of a piece: a load has as many shards as hold them.
    loads : int
        That are in use at the same time. Twice as many shards are kept at most: a run that goes on within an epoch
        meets some of which a part was taken before. Then the least recently used go.
    """

    def __init__(self, tiles: Sequence[Tiles], spots: int, loads: int) -> None:
        self.tiles = tiles
        smallest = [min(len(s.rows) for s in t.shards) for t in tiles if isinstance(t, ShardedTiles) and t.shards]
        self.keep = 2 * loads * -(-spots // max(1, min(smallest, default=spots)))
        self.reads = 0
        self._kept: OrderedDict[tuple[int, int], Future[dict[int, bytes]]] = OrderedDict()
        self._taken: dict[tuple[int, int], set[int]] = {}
        self._lock = threading.Lock()

    def take(self, section: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Tiles uint8 [n, T, T, 3] of some rows of a section.

        Raises
        ------
        DataError
            A shard is missing or damaged.
        """
        tiles = self.tiles[section]
        assert isinstance(tiles, ShardedTiles)
        out = np.empty((len(rows), *tiles.shape[1:]), np.uint8)
        for slot, (row, number) in enumerate(zip(rows.tolist(), tiles.shards_of(rows).tolist(), strict=True)):
            tiles.decode(self._shard(section, tiles, number)[row], out[slot], tiles.shards[number])
        for number in np.unique(tiles.shards_of(rows)).tolist():
            self._note(section, tiles, number, rows)
        return out

    def _note(self, section: int, tiles: ShardedTiles, number: int, rows: NDArray[np.int64]) -> None:
        """Let a shard go of which everything was taken."""
        key, shard = (section, number), tiles.shards[number]
        with self._lock:
            taken = self._taken.setdefault(key, set())
            taken.update(rows[tiles.shards_of(rows) == number].tolist())
            if len(taken) == len(shard.rows):
                self._kept.pop(key, None)
                del self._taken[key]

    def _shard(self, section: int, tiles: ShardedTiles, number: int) -> dict[int, bytes]:
        key = section, number
        with self._lock:
            found = self._kept.get(key)
            mine = found is None
            if found is None:
                found = self._kept[key] = Future()
                self.reads += 1
                while len(self._kept) > self.keep:
                    self._taken.pop(self._kept.popitem(last=False)[0], None)
            self._kept.move_to_end(key)
        if mine:
            try:
                found.set_result(tiles.read(number))
            except BaseException as error:
                found.set_exception(error)
        return found.result()


def shard_rows(tiles: Tiles, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows of each shard of a section; an array is cut into as many as it would have, anew each time."""
    if isinstance(tiles, ShardedTiles):
        return [shard.rows for shard in tiles.shards]
    return list(np.array_split(rng.permutation(len(tiles)).astype(np.int64), shard_count(len(tiles))))
