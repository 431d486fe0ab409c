"""What a slide's scores amount to: figures per pathway over the slide or a region of it, with their intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blocks import COVERAGE, REPLICATES, SEED, Blocks, limits, make_blocks, side_tiles
from .edge_effect import tissue_correlation
from .hot_spot import HotSpot, hot_spot
from .moran import morans_i
from .reach import reaches
from .tile_scores import TileScores, common_thresholds
from .weighted import usable_weights, weighted_mean, weighted_percentiles, weighted_sd

HIGH_Z = 1.0
"""A tile is high from here on, on the scale that all slides share: one spread above the centre of the held-out
predictions, above which about 16 % of tiles lie where they are normally distributed. Our own choice, not a clinical
limit."""
PATHWAYS_AT_ONCE = 8
"""What is worked out together: 150,000 tiles of fifty pathways would take 400 MB at once."""
OWN_PERCENTILE = 90
"""Without a common scale, a hot-spot is sought above this percentile of the slide's own tissue."""

Limits = tuple[float, float] | None


@dataclass(frozen=True)
class PathwaySummary:
    """One pathway over one region. Intervals are 95 % limits; None where there is none.

    Attributes
    ----------
    mean, sd : float
        Weighted by tissue, in the unit of the scores. The sd is the heterogeneity: how much the tissue differs from
        place to place, the model's noise included.
    mean_z : float or None
        The mean on the scale that all slides share.
    quartile_range : float
        p75 - p25 of the tissue: heterogeneity that a few odd tiles do not move.
    threshold : float or None
        Score from which on a tile is high.
    threshold_is : str
        "common scale" or "own percentile".
    area_above_mm2, share_above : float or None
        Tissue of high tiles, in mm2 and as a share of the tissue, 0 to 1; None without a common scale: the slide's own
        percentile would give the same share on every slide.
    hot_spot : HotSpot or None
    morans_i : float or None
        None where it does not exist (moran.py).
    morans_i_expected : float or None
        What it would be without any pattern: -1 / (n - 1).
    tissue_correlation : float or None
        Spearman's rho of score and tissue fraction (edge_effect.py).
    reach_um : float
        Distance over which tiles resemble each other (reach.py).
    blocks : int
        Blocks of the bootstrap that hold tissue.
    block_um : float
        Side of a block, microns.
    no_interval_because : str
        Why there are no intervals; empty where there are.
    """

    name: str
    mean: float
    mean_interval: Limits
    mean_z: float | None
    sd: float
    sd_interval: Limits
    quartile_range: float
    threshold: float | None
    threshold_is: str
    area_above_mm2: float | None
    share_above: float | None
    share_above_interval: Limits
    hot_spot: HotSpot | None
    morans_i: float | None
    morans_i_interval: Limits
    morans_i_expected: float | None
    tissue_correlation: float | None
    reach_um: float
    blocks: int
    block_um: float
    no_interval_because: str


@dataclass(frozen=True)
class RegionSummary:
    """All pathways over the whole slide, or over the tissue of one class of annotation.

    Attributes
    ----------
    region : str
        The class; empty for everything that was scored.
    tiles : int
        Tiles that count.
    tiles_left_out : int
        Readable tiles of the region that do not, by the rule of `SlideTrust`.
    tissue_mm2 : float
        Tissue of the tiles that count.
    scores : str
        "pathways_global" or "pathways": the read-out that was summarised.
    replicates, seed, coverage : int, int, float
        Of the bootstrap; the coverage is nominal.
    high_z : float
        z from which on a tile is high.
    pathways : tuple of PathwaySummary
        Empty where no tile counts.
    """

    region: str
    tiles: int
    tiles_left_out: int
    tissue_mm2: float
    scores: str
    replicates: int = REPLICATES
    seed: int = SEED
    coverage: float = COVERAGE
    high_z: float = HIGH_Z
    pathways: tuple[PathwaySummary, ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; pathways by their names."""
        named = {item.pop("name"): item for item in map(asdict, self.pathways)}
        return {**asdict(self), "pathways": named}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> RegionSummary:
        """The summary that `to_dict` wrote."""
        return cls(**{**value, "pathways": tuple(_pathway(name, item) for name, item in value["pathways"].items())})


def summarise(tiles: TileScores, *, region: str = "", left_out: int = 0, scores: str = "pathways") -> RegionSummary:
    """Summarise the tiles of a region.

    Parameters
    ----------
    tiles : TileScores
        The tiles that count.
    region : str
        Name of the region.
    left_out : int
        Tiles of it that do not count.
    scores : str
        Which read-out `tiles` hold.
    """
    if len(tiles) == 0:
        return RegionSummary(region, 0, left_out, 0.0, scores)
    by_side: dict[int, list[int]] = {}
    reach = reaches(tiles)
    for i, steps in enumerate(reach):
        by_side.setdefault(side_tiles(len(tiles), steps), []).append(i)
    found: dict[int, PathwaySummary] = {}
    for members in by_side.values():
        blocks = make_blocks(tiles, max(reach[i] for i in members))
        for first in range(0, len(members), PATHWAYS_AT_ONCE):
            part = members[first : first + PATHWAYS_AT_ONCE]
            rows = _pathway_summaries(tiles.pathways(part), blocks, [reach[i] * tiles.step_um for i in part])
            found.update(zip(part, rows, strict=True))
    tissue_mm2 = float(tiles.tissue_mm2.sum())
    pathways = tuple(found[i] for i in range(len(tiles.names)))
    return RegionSummary(region, len(tiles), left_out, tissue_mm2, scores, pathways=pathways)


def _pathway_summaries(tiles: TileScores, blocks: Blocks, reach_um: list[float]) -> list[PathwaySummary]:
    """The figures of each pathway."""
    weights = usable_weights(tiles.weights)
    mean, sd = weighted_mean(tiles.values, weights), weighted_sd(tiles.values, weights)
    high = common_thresholds(tiles.scales, HIGH_Z)
    above = tiles.values >= np.array([np.inf if t is None else t for t in high])
    shares = weighted_mean(above.astype(np.float64), weights)
    again = _replicates(tiles.values, weights, above, blocks)
    moran, moran_again = morans_i(tiles, blocks)
    low_quartile, own, high_quartile = weighted_percentiles(tiles.values, weights, (25, OWN_PERCENTILE, 75))
    correlations = tissue_correlation(tiles.values, tiles.weights)
    spans = {
        name: limits(values, blocks.count) if len(values) else [None] * len(mean) for name, values in again.items()
    }
    moran_spans = limits(moran_again, blocks.count) if len(moran_again) else [None] * len(mean)
    tissue_mm2 = float(tiles.tissue_mm2.sum())
    pathways: list[PathwaySummary] = []
    for i, name in enumerate(tiles.names):
        scale, common = tiles.scales[i], high[i]
        threshold = float(own[i]) if common is None else common
        known = bool(np.isfinite(moran[i]))
        pathways.append(
            PathwaySummary(
                name=name,
                mean=float(mean[i]),
                mean_interval=spans["mean"][i],
                mean_z=None if scale is None else float((mean[i] - scale.centre) / scale.spread),
                sd=float(sd[i]),
                sd_interval=spans["sd"][i],
                quartile_range=float(high_quartile[i] - low_quartile[i]),
                threshold=threshold,
                threshold_is="own percentile" if common is None else "common scale",
                area_above_mm2=None if common is None else float(shares[i]) * tissue_mm2,
                share_above=None if common is None else float(shares[i]),
                share_above_interval=None if common is None else spans["share"][i],
                hot_spot=hot_spot(tiles, i, threshold),
                morans_i=float(moran[i]) if known else None,
                morans_i_interval=moran_spans[i] if known else None,
                morans_i_expected=-1 / (len(tiles) - 1) if known else None,
                tissue_correlation=correlations[i],
                reach_um=reach_um[i],
                blocks=blocks.count,
                block_um=blocks.side_um,
                no_interval_because=blocks.why_none,
            )
        )
    return pathways


def _replicates(
    values: NDArray[np.float64], weights: NDArray[np.float64], above: NDArray[np.bool_], blocks: Blocks
) -> dict[str, NDArray[np.float64]]:
    """Mean, sd and share above the threshold of each replicate, float64 [replicates, P] each."""
    centre = weighted_mean(values, weights)
    apart = values - centre
    columns = np.stack([apart, apart**2, above.astype(np.float64)], axis=1) * weights[:, None, None]
    total = blocks.sums(weights[:, None])
    mean, square, share = np.moveaxis(blocks.sums(columns), 1, 0) / total
    return {"mean": mean + centre, "sd": np.sqrt(np.maximum(square - mean**2, 0)), "share": share}


def _pathway(name: str, value: dict[str, Any]) -> PathwaySummary:
    spot = value["hot_spot"]
    pairs = {key: None if value[key] is None else tuple(value[key]) for key in value if key.endswith("_interval")}
    made = None if spot is None else HotSpot(**{**spot, "box_level0_px": tuple(spot["box_level0_px"])})
    return PathwaySummary(name=name, **{**value, **pairs, "hot_spot": made})
