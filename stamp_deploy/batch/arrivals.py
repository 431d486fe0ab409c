"""Where a watch has its slides from: the interface, and the folder that is looked at again and again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .planning.dicom_series import SeriesOf, read_series
from .planning.folder import find_slides
from .planning.slide_parts import slide_parts
from .records.slide_states import file_state
from .states import AttemptState

URGENT, NORMAL = 0, 1
Signature = tuple[int, int, str]


class Arrivals(Protocol):
    """What gives a watch its slides. All but `settled` and `stop` are called from one thread."""

    def poll(self) -> list[tuple[Path, int]]:
        """Slides that became complete since the last call, with their priority, urgent ones first."""
        ...

    def pending(self) -> bool:
        """Whether slides are there that have not been given out as they are now."""
        ...

    def settled(self, path: Path, key: str, state: AttemptState) -> None:
        """Hear that a slide has reached a final state; from any thread, so it must be quick."""
        ...

    def stop(self) -> None:
        """Make `poll` and `finish` return soon; from any thread."""
        ...

    def finish(self) -> None:
        """Do what is left when nothing is scored any more."""
        ...


@dataclass(frozen=True)
class WatchOptions:
    """When a slide is complete, and which go first.

    Attributes
    ----------
    settle_s : float
        Seconds that size and modification time must not change.
    marker : str, optional
        Suffix of marker files: with ".done", a.svs is complete when a.svs.done is there (and only then).
    urgent : str
        Name of the sub-folder whose slides go first.
    """

    settle_s: float = 30.0
    marker: str | None = None
    urgent: str = "urgent"


class FolderWatcher:
    """Finds slides that are complete; pure bookkeeping around directory listings.

    Parameters
    ----------
    folder : Path
        The folder, searched with its sub-folders.
    options : WatchOptions
        When a slide is complete.
    skip : Path, optional
        A sub-folder not to search (the output).
    series_of : callable
        Gives the series of a DICOM file.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self,
        folder: Path,
        options: WatchOptions,
        *,
        skip: Path | None = None,
        series_of: SeriesOf = read_series,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._options = options
        self._skip = skip
        self._series_of = series_of
        self._clock = clock
        self._seen: dict[Path, tuple[Signature, float]] = {}
        self._given: dict[Path, Signature] = {}

    def poll(self) -> list[tuple[Path, int]]:
        """Slides that became complete since the last call, with their priority, urgent ones first.

        A slide that changes after it was given out (a copy that had stalled) is given out again when it
        has settled again.
        """
        now = self._clock()
        paths = find_slides(self._folder, skip=self._skip, series_of=self._series_of)
        present = set(paths)
        for gone in [path for path in self._seen if path not in present]:
            del self._seen[gone]
            self._given.pop(gone, None)
        ready = []
        for path in paths:
            signature = _signature(path, self._series_of)
            if signature is None:
                continue
            before = self._seen.get(path)
            if before is None or before[0] != signature:
                self._seen[path] = before = (signature, now)
            if self._given.get(path) != signature and self._is_complete(path, signature, now - before[1]):
                self._given[path] = signature
                ready.append((path, self._priority(path)))
        return sorted(ready, key=lambda item: (item[1], self._seen[item[0]][0][1], item[0]))

    def pending(self) -> bool:
        """Whether slides are there that have not been given out as they are now."""
        return any(self._given.get(path) != signature for path, (signature, _) in self._seen.items())

    def settled(self, path: Path, key: str, state: AttemptState) -> None:
        """A folder needs nothing done to its slides."""

    def stop(self) -> None:
        """A look at the folder is short."""

    def finish(self) -> None:
        """Nothing is left to do."""

    def _is_complete(self, path: Path, signature: Signature, stable_s: float) -> bool:
        if self._options.marker is not None:
            return os.path.exists(path.with_name(path.name + self._options.marker))
        return signature[0] > 0 and stable_s >= self._options.settle_s

    def _priority(self, path: Path) -> int:
        parts = path.relative_to(self._folder).parts[:-1]
        return URGENT if self._options.urgent in parts else NORMAL


def _signature(path: Path, series_of: SeriesOf) -> Signature | None:
    """(bytes, newest modification in ns, state) of the files of a slide; None where one went away."""
    try:
        parts = slide_parts(path, series_of)
        stats = [part.stat() for part in parts]
    except OSError:
        return None
    return sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats), file_state(parts)
