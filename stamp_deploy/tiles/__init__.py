"""Storage tiles of a slide become batches of model tiles."""

from .reader import StageTimes, Stop, TileBatch, TileStatus
from .source import TileSource, open_tiles

__all__ = ["StageTimes", "Stop", "TileBatch", "TileSource", "TileStatus", "open_tiles"]
