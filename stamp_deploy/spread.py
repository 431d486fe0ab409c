"""Some of many, evenly spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def spread(total: int, count: int) -> NDArray[np.int64]:
    """`count` indices evenly spread over `total` (all of them where there are fewer)."""
    return np.unique(np.linspace(0, total - 1, min(total, count)).round().astype(np.int64))
