"""Which spots a batch holds where tiles lie in shards: shards are opened one after the other and used up.

A load is the fewest shards of a section that hold a piece of a batch. Its rows are shuffled, and its pieces go into
batches while it is open; some loads of several sections are open at a time. So each shard is read once an epoch, from
start to end, by one process, and what is kept in memory is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from .epoch_plan import Rows, balanced

OPEN = 2
"""Loads that are open at a time, for each section of a batch: the shuffle buffer."""

Piece = tuple[int, NDArray[np.int64]]
"""The number of a load of its section, and rows of it."""


def plan_shards(
    shards: Sequence[Sequence[NDArray[np.int64]]],
    slides: int,
    spots: int,
    rng: np.random.Generator,
    world: int = 1,
    groups: Sequence[Hashable] | None = None,
) -> list[list[Rows]]:
    """The batches of each process, as `epoch_plan.plan_epoch` makes them of arrays.

    A section's first load comes before any section's second one, so that every section appears as early as can be:
    with 8 shards a section or more, within the first fifth. The other loads are spread evenly over the epoch. Loads are
    dealt to the processes, each to the one with the least.

    Parameters
    ----------
    shards : sequence of sequence of int64 [n]
        Rows of each shard of each section.
    slides, spots : int
        Pieces of a batch, of different sections where there are enough, and rows of a piece at most.
    groups : sequence, optional
        As in `plan_epoch`.
    """
    pieces = [_pieces(s, spots, rng) for s in shards]
    if groups is not None:
        pieces = balanced(pieces, groups, lambda i: _pieces(shards[i], spots, rng))
    queue: list[tuple[bool, float, int, list[NDArray[np.int64]]]] = []
    for i, own in enumerate(pieces):
        loads = _loads(own)
        due = (np.arange(len(loads)) + rng.random(len(loads))) / max(len(loads), 1)
        queue += [(j > 0, float(due[j]), i, load) for j, load in enumerate(loads)]
    dealt: list[list[tuple[int, list[NDArray[np.int64]]]]] = [[] for _ in range(world)]
    weight = np.zeros(world, np.int64)
    for _, _, i, load in sorted(queue, key=lambda entry: entry[:3]):
        rank = int(weight.argmin())
        dealt[rank].append((i, load))
        weight[rank] += len(load)
    made = [_batches(own, slides, rng) for own in dealt]
    some = [batches for batches in made if batches]
    return [batches or some[rank % len(some)] for rank, batches in enumerate(made)] if some else made


def _pieces(shards: Sequence[NDArray[np.int64]], spots: int, rng: np.random.Generator) -> list[Piece]:
    """The shards in a drawn order, their loads shuffled and cut evenly."""
    found: list[Piece] = []
    load: list[NDArray[np.int64]] = []
    number = 0
    order = rng.permutation(len(shards))
    for place, s in enumerate(order.tolist()):
        load.append(shards[s])
        size = sum(map(len, load))
        if size and (size >= spots or place + 1 == len(order)):
            rows = rng.permutation(np.concatenate(load))
            found += [(number, part) for part in np.array_split(rows, -(-size // spots))]
            load, number = [], number + 1
    return found


def _loads(pieces: Sequence[Piece]) -> list[list[NDArray[np.int64]]]:
    """Pieces that follow each other and are of one load, together."""
    found: list[list[NDArray[np.int64]]] = []
    last = -1
    for number, rows in pieces:
        if number != last or not found:
            found.append([])
        found[-1].append(rows)
        last = number
    return found


def _batches(loads: Sequence[tuple[int, list[NDArray[np.int64]]]], slides: int, rng: np.random.Generator) -> list[Rows]:
    """Batches of `slides` pieces out of the open loads, those first of which nothing was taken yet; a section comes
    twice only where there are too few others."""
    waiting, batches = deque(loads), []
    left: list[tuple[int, deque[NDArray[np.int64]]]] = []
    untouched: list[bool] = []
    while waiting or left:
        while waiting and len(left) < OPEN * slides:
            i, load = waiting.popleft()
            left.append((i, deque(load)))
            untouched.append(True)
        batch: Rows = []
        while len(batch) < slides and left:
            taken = {i for i, _ in batch}
            order = sorted(rng.permutation(len(left)).tolist(), key=lambda k: (left[k][0] in taken, not untouched[k]))
            i, pieces = left[order[0]]
            batch.append((i, pieces.popleft()))
            untouched[order[0]] = False
            if not pieces:
                del left[order[0]], untouched[order[0]]
        batches.append(batch)
    return batches
