"""Whether a score follows how much tissue a tile holds, which says more of the tile's edge than of biology."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ranks import mean_ranks

STRONG = 0.3
"""Size of the correlation that is worth a warning (our own choice; -0.47 was measured on a demo slide)."""
MIN_TILES = 10
"""Fewer tiles tell nothing of a correlation."""


def tissue_correlation(values: NDArray[np.floating], tissue_fraction: NDArray[np.floating]) -> list[float | None]:
    """Spearman's rank correlation of each pathway's score with the tissue fraction (Spearman 1904; ties share ranks).

    Parameters
    ----------
    values : float [N, P]
    tissue_fraction : float [N]

    Returns
    -------
    list of float or None, one per pathway
        None where there are fewer than `MIN_TILES` tiles, or where all fractions or all scores are equal.
    """
    if len(values) < MIN_TILES:
        return [None] * values.shape[1]
    tissue = mean_ranks(tissue_fraction)
    tissue -= tissue.mean()
    found: list[float | None] = []
    for column in values.T:
        score = mean_ranks(column)
        score -= score.mean()
        size = float(np.sqrt((tissue @ tissue) * (score @ score)))
        found.append(float(tissue @ score) / size if size > 0 else None)
    return found


def edge_warning(correlations: dict[str, float | None]) -> str:
    """A line for the reader of the result; empty where no correlation is strong."""
    strong = {name: r for name, r in correlations.items() if r is not None and abs(r) >= STRONG}
    if not strong:
        return ""
    worst = max(strong, key=lambda name: abs(strong[name]))
    return (
        f"scores of {len(strong)} of {len(correlations)} pathways go with how much tissue a tile holds (Spearman's rho "
        f"{strong[worst]:+.2f} for {worst}): in part they may show the tissue's edge; --min-fraction leaves edges out"
    )
