"""The bootstrap over space: neighbouring spots are alike, so whole blocks of them are drawn, not single spots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK_UM = 600.0
"""Three spots of 200 um a side: beyond it, expression scores of neighbours are hardly alike any more."""
MIN_BLOCKS = 6
"""A section of fewer blocks has no interval: draws of so few repeat themselves."""


def space_blocks(xy_um: NDArray[np.floating], side_um: float = BLOCK_UM) -> NDArray[np.int64]:
    """The block of each spot, counted from 0: squares of `side_um` from the section's upper left. xy_um is [N, 2]."""
    xy = np.asarray(xy_um, np.float64)
    cells = np.floor((xy - xy.min(axis=0)) / side_um).astype(np.int64)
    return np.asarray(np.unique(cells, axis=0, return_inverse=True)[1], np.int64).ravel()


def resampled_r(
    truth: NDArray[np.floating],
    predicted: NDArray[np.floating],
    blocks: NDArray[np.int64],
    *,
    draws: int = 2000,
    seed: int | Sequence[int] = 0,
) -> NDArray[np.float64] | None:
    """Pearson r of each pathway over blocks that are drawn with replacement; the same draws for the same seed.

    Parameters
    ----------
    truth, predicted : float [N, P]
    blocks : int64 [N]
        As `space_blocks` gives them.

    Returns
    -------
    float64 [draws, P], or None
        NaN where the truth does not vary in any draw; 0 where the prediction does not. None with too few blocks.
    """
    count = int(blocks.max(initial=-1)) + 1
    if count < MIN_BLOCKS:
        return None
    a, b = (np.asarray(v, np.float64) for v in (truth, predicted))
    constant = np.ptp(a, axis=0) <= 1e-9
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    member = np.zeros((count, len(a)))
    member[blocks, np.arange(len(a))] = 1
    picked = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)
    n = (picked @ member.sum(axis=1))[:, None]
    sum_a, sum_b, sum_aa, sum_bb, sum_ab = (picked @ (member @ v) for v in (a, b, a * a, b * b, a * b))
    var_a, var_b = sum_aa - sum_a**2 / n, sum_bb - sum_b**2 / n
    norm = np.sqrt(np.maximum(var_a, 0) * np.maximum(var_b, 0))
    r = np.divide(sum_ab - sum_a * sum_b / n, norm, out=np.zeros_like(norm), where=norm > 1e-12)
    r[:, constant] = np.nan
    return np.asarray(np.clip(r, -1, 1), np.float64)
