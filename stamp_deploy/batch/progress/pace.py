"""How fast a batch goes, and how long it will take."""

from __future__ import annotations

import time


class Pace:
    """Tiles per second and seconds left, from tiles seen and the share of the slides' bytes done."""

    def __init__(self, total_bytes: int) -> None:
        self._total = max(1, total_bytes)
        self._done_bytes = 0.0
        self._partial: dict[str, tuple[int, float]] = {}
        self._tiles = 0
        self._started = time.monotonic()

    def add(self, size_bytes: int) -> None:
        """More slides have come (watching a folder)."""
        self._total += size_bytes

    def see(self, key: str, done: int, total: int, size_bytes: int) -> None:
        """A slide has come so far."""
        self._tiles += max(0, done - self._partial.get(key, (0, 0.0))[0])
        self._partial[key] = (done, size_bytes * done / max(1, total))

    def finish(self, key: str, size_bytes: int) -> None:
        """A slide is settled."""
        self._partial.pop(key, None)
        self._done_bytes += size_bytes

    def rates(self) -> tuple[float, float, float | None]:
        """(fraction done, tiles/s, seconds left or None)."""
        elapsed = max(1e-3, time.monotonic() - self._started)
        done = min(1.0, (self._done_bytes + sum(size for _, size in self._partial.values())) / self._total)
        left = elapsed * (1 - done) / done if done > 0.001 else None
        return done, self._tiles / elapsed, left
