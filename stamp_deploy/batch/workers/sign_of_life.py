"""Whether a worker process still lives: it sends a beat every few seconds, and work takes processor time."""

from __future__ import annotations

import os
import time
from pathlib import Path

BEAT_S = 2.0
"""How often a worker says that it lives."""
SILENT_S = 45.0
"""A worker without any sign of life for so long is lost. Library code that keeps Python from running for longer,
as some engine builders do, takes processor time, which is a sign of life too."""
BUSY = 0.25
"""Share of one processor that is work; threads that wait for Python's lock take a few hundredths."""
LONGEST_LOOK_S = 5.0
"""A longer gap between two looks was a pause of ours, not silence of the worker."""


class WatchedClock:
    """Seconds in which this process was looking.

    A scheduler that suspends a job, or a laptop that sleeps, stops the parent too: by a wall clock, every worker
    and slide would have been silent for hours when it goes on.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._last = time.monotonic()

    def now(self) -> float:
        """Seconds since the start, pauses left out; to be asked every second or so."""
        now = time.monotonic()
        self._seconds += min(now - self._last, LONGEST_LOOK_S)
        self._last = now
        return self._seconds


class SignOfLife:
    """When a process last gave a sign of life, by a watched clock."""

    def __init__(self, pid: int, clock: WatchedClock) -> None:
        self._pid = pid
        self._clock = clock
        self._last = self._looked = clock.now()
        self._busy_s = _processor_seconds(pid)

    def seen(self) -> None:
        """The process has sent something."""
        self._last = self._clock.now()

    def lost(self) -> bool:
        """Whether it has been silent, and idle, for too long."""
        now = self._clock.now()
        if now - self._looked >= 1.0:
            busy_s = _processor_seconds(self._pid)
            if busy_s - self._busy_s > BUSY * (now - self._looked):
                self._last = now
            self._busy_s, self._looked = busy_s, now
        return now - self._last > SILENT_S

    def is_stopped(self) -> bool:
        """Whether it was stopped by a signal (SIGSTOP) or a debugger."""
        return _stat(self._pid)[:1] in (["T"], ["t"])


def _processor_seconds(pid: int) -> float:
    """Processor time of a process so far; 0 where it is gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _stat(pid: int) -> list[str]:
    """What /proc says about a process, from its state on; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
