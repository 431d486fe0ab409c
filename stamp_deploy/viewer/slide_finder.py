"""Where the slide of a result lies: results name no folder, so it is looked for by its file's name."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from ..system.names import printable

MOST_FILES = 1_000_000
LOOK_AGAIN_S = 10.0
"""A name that was not found is looked for again after so long: slides may arrive."""


class SlideFinder:
    """Finds files by name below some folders.

    Parameters
    ----------
    places : sequence of Path
        Files; folders, searched with all folders below.
    shallow : sequence of Path
        Folders whose own files alone are looked at.
    """

    def __init__(self, places: Sequence[Path], shallow: Sequence[Path] = ()) -> None:
        self._places, self._shallow = tuple(places), tuple(shallow)
        self._found: dict[str, list[Path]] = {}
        self._looked_at = -LOOK_AGAIN_S
        self._lock = Lock()

    def find(self, name: str) -> list[Path]:
        """The files of a name as results show it (`shown_name`)."""
        with self._lock:
            if name not in self._found and time.monotonic() > self._looked_at + LOOK_AGAIN_S:
                self._found = self._look()
                self._looked_at = time.monotonic()
            return list(self._found.get(name, []))

    def _look(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        seen = 0
        for place in self._places:
            if place.is_file():
                found.setdefault(printable(place.name), []).append(place)
                continue
            for root, _, names in os.walk(place):
                for name in names:
                    found.setdefault(printable(name), []).append(Path(root, name))
                seen += len(names)
                if seen > MOST_FILES:
                    return found
        for folder in self._shallow:
            try:
                entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_file()]
            except OSError:
                continue
            for path in entries:
                found.setdefault(printable(path.name), []).append(path)
        return found
