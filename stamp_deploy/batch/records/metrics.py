"""Prometheus metrics as a textfile for node_exporter's textfile collector.

No port is opened. The file is replaced whole after each slide, and at each look at a watched folder. Labels never carry
slide names. deploy/monitoring/ has alert rules and a dashboard for these names.
"""

from __future__ import annotations

import time
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    write_to_textfile,
)

from ...errors import DiskError
from ...trust.verdict import VERDICTS
from ..states import AttemptState

disable_created_metrics()  # type: ignore[no-untyped-call]  # of each counter, when it was made: nobody asks for that, and it doubles the file
SLIDE_SECONDS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0)


class BatchMetrics:
    """Counters of one batch or watch process.

    Parameters
    ----------
    path : Path
        The ``.prom`` file to replace; its folder must exist.
    version : str
        Version of the software.
    bundle_sha256 : str
        Identity of the bundle.
    """

    def __init__(self, path: Path, *, version: str, bundle_sha256: str) -> None:
        self.path = path
        self.registry = CollectorRegistry()
        self._slides = Counter("stamp_slides", "Slides by the state they ended in", ["state"], registry=self.registry)
        self._tiles = Counter("stamp_tiles", "Tiles by status", ["status"], registry=self.registry)
        self._stages = Counter("stamp_stage_seconds", "Busy seconds by stage", ["stage"], registry=self.registry)
        self._trust = Counter(
            "stamp_trust", "Slides by whether they are like what the model knows", ["verdict"], registry=self.registry
        )
        self._seconds = Histogram(
            "stamp_slide_seconds", "Seconds a slide took", buckets=SLIDE_SECONDS, registry=self.registry
        )
        self._restarts = Counter(
            "stamp_worker_restarts", "Worker processes replaced, by cause", ["cause"], registry=self.registry
        )
        self._waiting = Gauge("stamp_slides_waiting", "Slides not yet started", registry=self.registry)
        self._running = Gauge("stamp_slides_running", "Slides being worked on", registry=self.registry)
        self._success = Gauge(
            "stamp_last_success_timestamp_seconds", "When a slide last finished", registry=self.registry
        )
        self._write = Gauge(
            "stamp_metrics_written_timestamp_seconds", "When this file was written", registry=self.registry
        )
        build = Gauge("stamp_build_info", "What runs", ["version", "bundle"], registry=self.registry)
        build.labels(version, bundle_sha256).set(1)
        for state in AttemptState:
            if state.final:
                self._slides.labels(state)
        for verdict in VERDICTS:
            self._trust.labels(verdict)

    def slide_ended(self, state: AttemptState, seconds: float) -> None:
        """Count a slide that reached a final state."""
        self._slides.labels(state).inc()
        if state == AttemptState.DONE:
            self._seconds.observe(seconds)
            self._success.set(time.time())

    def slide_judged(self, verdict: str) -> None:
        """Count a scored slide by its verdict ("inside", "doubtful", "outside", "not judged")."""
        self._trust.labels(verdict).inc()

    def tiles_seen(self, counts: dict[str, int]) -> None:
        """Add tile counts by status ("ok", "missing", "corrupt", "timeout", "background")."""
        for status, number in counts.items():
            self._tiles.labels(status).inc(number)

    def stage_seconds(self, timing: dict[str, float]) -> None:
        """Add busy seconds by stage ("read", "decode", "resample", "engine", "write", ...)."""
        for stage, seconds in timing.items():
            self._stages.labels(stage).inc(max(0.0, seconds))

    def worker_restarted(self, cause: str) -> None:
        """Count a replaced worker process ("crashed", "timeout", "lost", or "node-lost")."""
        self._restarts.labels(cause).inc()

    def queue(self, waiting: int, running: int) -> None:
        """Set how many slides wait and run."""
        self._waiting.set(waiting)
        self._running.set(running)

    def write(self) -> None:
        """Replace the textfile.

        Raises
        ------
        DiskError
            When the file cannot be written.
        """
        self._write.set(time.time())
        try:
            write_to_textfile(str(self.path), self.registry)
        except OSError as error:
            raise DiskError(f"metrics cannot be written: {error.strerror}", path=self.path) from error
