"""Which tiles lie beside each other, or so many steps apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def neighbour_pairs(cells: NDArray[np.int64], steps: int = 1) -> NDArray[np.int64]:
    """Pairs (i, j) of tiles that lie `steps` apart in one row or column, each once: int64 [M, 2] of cells [N, 2].

    With one step these are the tiles that share an edge.
    """
    if len(cells) == 0:
        return np.empty((0, 2), np.int64)
    wide = int(cells[:, 0].max()) + 1 + steps  # beyond the last column there is nobody: no pair runs into the next row
    flat = cells[:, 1] * wide + cells[:, 0]
    order = np.argsort(flat)
    ordered = flat[order]
    found = []
    for apart in (steps, steps * wide):
        at = np.minimum(np.searchsorted(ordered, flat + apart), len(flat) - 1)
        match = ordered[at] == flat + apart
        found.append(np.column_stack([np.flatnonzero(match), order[at[match]]]))
    return np.concatenate(found)
