"""Work dealt out by size."""

from __future__ import annotations

from collections.abc import Sequence


def deal_out(sizes: Sequence[int], hands: int) -> list[int]:
    """Whose each piece of work is: the largest first, each to the one with the least to do."""
    load, owner = [0] * hands, [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        owner[i] = min(range(hands), key=lambda hand: load[hand])
        load[owner[i]] += sizes[i]
    return owner
