"""What a slide's scores amount to. One noun per file; docs/summaries.md explains each figure."""

from .edge_effect import edge_warning, tissue_correlation
from .hot_spot import HotSpot
from .slide_summary import HIGH_Z, PathwaySummary, RegionSummary, summarise
from .tile_scores import TileScores
from .weighted import PERCENTILES, usable_weights, weighted_mean, weighted_percentiles, weighted_sd

__all__ = [
    "HIGH_Z", "PERCENTILES", "HotSpot", "PathwaySummary", "RegionSummary", "TileScores", "edge_warning", "summarise",
    "tissue_correlation", "usable_weights", "weighted_mean", "weighted_percentiles", "weighted_sd",
]  # fmt: skip
