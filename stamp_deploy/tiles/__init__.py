"""Storage tiles of a slide become batches of model tiles."""

from .source import StageTimes, TileBatch, TileSource, TileStatus, open_tiles

__all__ = ["StageTimes", "TileBatch", "TileSource", "TileStatus", "open_tiles"]
