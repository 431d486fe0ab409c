"""Slides opened in a child process, for planning: one that crashes or hangs the reader is found there."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from ...errors import EngineError, SlideError
from ..workers.process import ChildProcess, WorkerConfig, rebuild_error
from .plan import SlideFacts

START_LIMIT_S = 60.0
"""The process has only to import."""
TRIES = 2
SLOWEST_READ_BYTES_PER_S = 5e6


class SafeProbe:
    """Opens one slide after the other in a child process, which is replaced when a slide crashes or hangs it.

    Parameters
    ----------
    setup : WorkerConfig
        How the process is started.
    limit_s : float
        Seconds after which a slide counts as hung.
    """

    def __init__(self, setup: WorkerConfig, *, limit_s: float = 60.0) -> None:
        self._setup = setup
        self._limit_s = limit_s
        self._child: ChildProcess | None = None
        self._series: dict[tuple[Path, int, int], str] = {}

    def __call__(self, slide: Path, mpp: float | None) -> SlideFacts:
        """Facts of a slide; one that crashes or hangs the reader is tried once more, by a new process.

        Raises
        ------
        SlideError, MppError
            As ``open_slide``, or because the slide crashes or hangs the reader twice.
        EngineError
            No process can be started.
        """
        return SlideFacts(**self._ask("probe", slide, mpp))

    def series(self, path: Path) -> str:
        """The DICOM series of a file (see dicom_series.py), read once for each state of the file.

        Raises
        ------
        EngineError
            No process can be started.
        """
        try:
            state = path.stat()
        except OSError:
            return str(path)
        if not stat.S_ISREG(state.st_mode):
            return str(path)
        key = (path, state.st_size, state.st_mtime_ns)
        if key not in self._series:
            try:
                self._series[key] = str(self._ask("series", path)["series"])
            except SlideError:  # it crashes or hangs the reader: opening it as a slide says so
                self._series[key] = str(path)
        return self._series[key]

    def levels(self, path: Path) -> list[str]:
        """The SOP Instance UIDs of the levels of a DICOM slide, sorted; none where its files cannot be read.

        Raises
        ------
        EngineError
            No process can be started.
        """
        try:
            return [str(uid) for uid in self._ask("levels", path)["levels"]]
        except SlideError:  # it crashes or hangs the reader: opening it as a slide says so
            return []

    def identity(self, path: Path) -> str:
        """The SHA-256 that identifies a slide (slide/identity.py); reads all of it.

        Raises
        ------
        SlideError
            It cannot be read.
        EngineError
            No process can be started.
        """
        limit_s = self._limit_s + path.stat().st_size / SLOWEST_READ_BYTES_PER_S
        return str(self._ask("identity", path, limit_s=limit_s)["sha256"])

    def _ask(self, what: str, slide: Path, mpp: float | None = None, *, limit_s: float = 0.0) -> dict[str, Any]:
        """The child's answer about a file."""
        limit_s = limit_s or self._limit_s
        how = ""
        for _ in range(TRIES):
            child = self._child or self._start()
            child.send({"op": "probe", "key": "probe", "what": what, "slide": str(slide), "mpp": mpp})
            event = child.next_event(limit_s)
            if event is not None and event["event"] == "probed":
                facts: dict[str, Any] = event["facts"]
                return facts
            if event is not None and event["event"] == "probe-failed":
                raise rebuild_error(event["error"], slide)
            how = f"hung for {limit_s:g} s" if event is None else child.how_it_died()
            self.close()
        raise SlideError(
            f"the reader {how} on opening it, {TRIES} times", remedy="the file is damaged; copy it again", path=slide
        )

    def _start(self) -> ChildProcess:
        for _ in range(TRIES):
            self._child = child = ChildProcess(self._setup)
            event = child.next_event(START_LIMIT_S)
            if event is not None and event["event"] == "ready":
                return child
            self.close()
        raise EngineError("the process that opens slides cannot be started", remedy="see the log in .stamp")

    def close(self) -> None:
        """End the child process."""
        if self._child is not None:
            self._child.kill()
            self._child = None
