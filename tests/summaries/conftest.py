"""What tests of summaries share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def blob() -> np.ndarray:
    """Ragged tissue with a hole and an island: bool [30, 40]."""
    y, x = np.mgrid[:30, :40]
    cover = ((x - 18) / 17) ** 2 + ((y - 14) / 12) ** 2 < 1
    cover[10:14, 12:20] = False
    cover[2, 39] = True
    return cover
