"""Tiles that were made, kept until their bytes exceed a bound; the least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock

CACHE_BYTES = 64 << 20


class TileCache:
    """A cache of encoded tiles, safe for threads.

    Parameters
    ----------
    most_bytes : int
        What the tiles may take together.
    """

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self._most = most_bytes
        self._tiles: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = Lock()
        self.held_bytes = 0

    def get(self, key: Hashable) -> bytes | None:
        """A tile, or None where it is not held."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: Hashable, tile: bytes) -> None:
        """Keep a tile; one that is larger than the bound is not kept."""
        with self._lock:
            self.held_bytes -= len(self._tiles.pop(key, b""))
            self._tiles[key] = tile
            self.held_bytes += len(tile)
            while self.held_bytes > self._most:
                self.held_bytes -= len(self._tiles.popitem(last=False)[1])
