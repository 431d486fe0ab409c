"""Two results of one slide side by side."""

from .agreement import Agreement, agreement
from .comparison import Comparison, compare_results
from .matched_tiles import MatchedTiles, match_tiles
from .write import write_comparison

__all__ = [
    "Agreement", "Comparison", "MatchedTiles", "agreement", "compare_results", "match_tiles", "write_comparison",
]  # fmt: skip
