"""Which spots a batch holds, over an epoch: every section early and evenly, and none at the cost of another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Part = TypeVar("Part")
Rows = list[tuple[int, NDArray[np.int64]]]
"""What a batch is made of: sections by their place in the list, and rows of each."""
EARLY = 0.15
"""A section's first piece is due within this part of the epoch."""
LEAST = 8
"""A remainder of fewer rows joins the section's last piece."""


def plan_epoch(
    sizes: Sequence[int],
    slides: int,
    spots: int,
    rng: np.random.Generator,
    groups: Sequence[Hashable] | None = None,
) -> list[Rows]:
    """Batches of up to `slides` sections with `spots` rows each, so that losses within a slide have enough rows.

    The pieces of a section are spread evenly over the epoch, the first of them near its start: every section appears
    in the first fifth of the batches wherever these have room for all.

    Parameters
    ----------
    groups : sequence, optional
        What is to be balanced: each section's platform, for instance. Every group then has the same number of pieces;
        a large one shows a part of its spots, another one each epoch, and a small one shows its spots several times.
        By default every spot is seen once.
    """
    pieces = [_pieces(size, spots, rng) for size in sizes]
    if groups is not None:
        pieces = balanced(pieces, groups, lambda i: _pieces(sizes[i], spots, rng))
    left = np.array([len(p) for p in pieces])
    due = [_due(len(p), rng) for p in pieces]
    soonest = np.array([d[0] if len(d) else np.inf for d in due])
    batches: list[Rows] = []
    for remaining in range(max(-(-int(left.sum()) // slides), int(left.max(initial=0))), 0, -1):
        forced = np.flatnonzero(left == remaining)  # one per batch from here on, or not all can be placed
        order = np.argsort(soonest, kind="stable")
        chosen = [*forced.tolist(), *(i for i in order[: slides + len(forced)].tolist() if left[i] and i not in forced)]
        batch: Rows = []
        for i in chosen[:slides]:
            batch.append((i, pieces[i][len(due[i]) - left[i]]))
            left[i] -= 1
            soonest[i] = due[i][len(due[i]) - left[i]] if left[i] else np.inf
        batches.append(batch)
    return batches


def _pieces(size: int, spots: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    order = rng.permutation(size).astype(np.int64)
    cuts = list(range(spots, size, spots))
    if cuts and size - cuts[-1] < LEAST:
        cuts.pop()
    return np.split(order, cuts) if size else []


def _due(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """When each piece of a section is due, in parts of the epoch."""
    if not count:
        return np.zeros(0)
    due = (np.arange(count) + rng.random()) / count
    due[0] = min(due[0], EARLY * rng.random())
    return due


def balanced(
    pieces: Sequence[list[Part]], groups: Sequence[Hashable], more: Callable[[int], list[Part]]
) -> list[list[Part]]:
    """As many pieces of each group, shared among its sections by their size; at least one of each section.

    Parameters
    ----------
    more : callable
        Further pieces of a section, for groups that have too few.
    """
    total = sum(len(p) for p in pieces)
    names = list(dict.fromkeys(groups))
    out: list[list[Part]] = [[] for _ in pieces]
    for name in names:
        own = [i for i, group in enumerate(groups) if group == name]
        have = sum(len(pieces[i]) for i in own)
        for i in own:
            wanted = max(1, round(total / len(names) * len(pieces[i]) / max(have, 1)))
            out[i] = pieces[i][:wanted]
            while len(out[i]) < wanted and pieces[i]:
                out[i] = [*out[i], *more(i)][:wanted]
    return out
