"""Where a slide's storage tiles lie: one index for every format that the compiled tiler reads (see docs/tiles.md)."""

from .index import Framing, StorageGrid, StorageIndex

__all__ = ["Framing", "StorageGrid", "StorageIndex"]
