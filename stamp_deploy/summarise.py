"""A result with its summaries: the whole slide first, then one per class of annotation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .result import Result
from .summaries import RegionSummary, TileScores, edge_warning, summarise

IN_CLASS = 0.5
"""Share of a tile's tissue that must lie in a class for the tile to be summarised there (our own choice)."""


def add_summaries(result: Result, classes: Mapping[str, NDArray[np.float32]] | None = None) -> Result:
    """The result with `summaries`, and a warning where scores follow the edge of the tissue.

    Parameters
    ----------
    result : Result
    classes : mapping of str to float32 [N], optional
        Per class of annotation, the share of each tile that is tissue of that class, 0 to 1. A tile belongs to a class
        that holds at least half of its tissue, and counts by its tissue there; classes may overlap.
    """
    tiles = result.tile_scores()
    regions = [_region(result, tiles, "", np.ones(len(tiles), bool), tiles.weights)]
    regions += [summarise_area(result, name, share, tiles) for name, share in (classes or {}).items()]
    warning = edge_warning({item.name: item.tissue_correlation for item in regions[0].pathways})
    warnings = (*result.warnings, warning) if warning else result.warnings
    return replace(result, summaries=tuple(regions), warnings=warnings)


def summarise_area(
    result: Result, name: str, share: NDArray[np.float32], tiles: TileScores | None = None
) -> RegionSummary:
    """The summary of an area that was drawn.

    Parameters
    ----------
    result : Result
    name : str
        Of the area.
    share : float32 [N]
        Share of each tile that is tissue of the area, 0 to 1; see `add_summaries`.
    tiles : TileScores, optional
        The result's own, where they are at hand.
    """
    tiles = tiles or result.tile_scores()
    inside = (share > 0) & (share >= IN_CLASS * tiles.weights)
    return _region(result, tiles, name, inside, share.astype(np.float64))


def _region(
    result: Result, tiles: TileScores, name: str, inside: NDArray[np.bool_], weights: NDArray[np.float64]
) -> RegionSummary:
    counted = result.counted
    return summarise(
        tiles.of(inside & counted, weights),
        region=name,
        left_out=int((inside & ~counted).sum()),
        scores=result.summarised,
    )
