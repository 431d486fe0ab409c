"""All results side by side (OUT/summary/): once at the end of a batch, again and again beside a watch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import StampError
from .options import BatchOptions
from .planning.plan import Finding
from .progress import View
from .states import FindingKind

if TYPE_CHECKING:
    from ..cases.thumbnails import Thumbnails

NEEDS = "json"
"""The format that a summary reads."""
LIBRARIES = ("stamp_deploy.cases", "matplotlib.backends.backend_agg", "scipy.cluster.hierarchy", "pyarrow.parquet")
BUSY_S = 60.0
"""While slides are being worked on, and after a failure, this long passes before the next."""
REST = 20.0
"""A pause of this many times as long as the last one took: summaries cost a twentieth of the time at most."""


def load_ahead(options: BatchOptions) -> None:
    """Load what a summary needs in a thread of its own, while slides are worked on; returns at once.

    matplotlib, SciPy and pyarrow take the better part of a second to load, which a batch would wait for at its end.
    """
    if NEEDS in options.infer.writers:
        threading.Thread(target=_load, name="load-summary").start()


def _load() -> None:
    """Ends between two libraries when the process does; one that is being loaded as it ends could abort it."""
    for name in LIBRARIES:
        if not threading.main_thread().is_alive():
            return
        with suppress(Exception):  # `summarise` meets the same, and tells it
            import_module(name)


def summarise(options: BatchOptions, thumbnails: Thumbnails | None = None) -> list[Finding]:
    """Write the summary, where its format is among those that are written.

    Returns
    -------
    list of Finding
        What could not be done, to be told: the results are whole without it. One that concerns all of it has no name.
    """
    from ..cases import write_summary

    if NEEDS not in options.infer.writers:
        return []
    try:
        written = write_summary(options.out, thumbnails=thumbnails)
    except StampError as error:
        return [_not_written(str(error))]
    return [
        Finding(FindingKind.NO_SUMMARY, unread.key, f"it is not in the summary: {unread.cause}")
        for unread in written.unread
    ]


class RunningSummary:
    """Keeps the summary of a watch up to date, in a thread of its own and seldom enough to cost little.

    It is written when nothing waits and nothing is being worked on; in a watch that is never idle, once a minute; and
    never before `REST` times as long as the last one took has gone by. Thumbnails are kept from one to the next. The
    same finding is told once.

    Parameters
    ----------
    options : BatchOptions
        The output and its formats; without `NEEDS` no summary is written.
    view : View
        Is told what could not be summarised.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, options: BatchOptions, view: View, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._options, self._view, self._clock = options, view, clock
        self._wanted = NEEDS in options.infer.writers
        self._thumbnails: Thumbnails | None = None
        self._told: set[Finding] = set()
        self._fresh = threading.Event()
        self._thread: threading.Thread | None = None
        self._ended, self._pause_s = clock() - BUSY_S, 0.0

    def result_added(self) -> None:
        """Hear that there is one more result; from any thread."""
        if self._wanted:
            self._fresh.set()

    def look(self, *, idle: bool) -> None:
        """Begin to write where that is due; returns at once.

        Parameters
        ----------
        idle : bool
            Nothing waits, and nothing is being worked on.
        """
        if not self._fresh.is_set() or (self._thread is not None and self._thread.is_alive()):
            return
        if self._clock() - self._ended >= (self._pause_s if idle else max(self._pause_s, BUSY_S)):
            self._thread = threading.Thread(target=self._write, name="watch-summary")
            self._thread.start()

    def finish(self, *, write: bool) -> None:
        """Wait for the one that is being written; with `write`, take in what has come since."""
        if self._thread is not None:
            self._thread.join()
        if write and self._fresh.is_set():
            self._write()

    def _write(self) -> None:
        from ..cases.thumbnails import Thumbnails

        self._fresh.clear()  # before it reads: what comes meanwhile is for the next
        self._thumbnails = self._thumbnails or Thumbnails()
        began = self._clock()
        try:
            found = summarise(self._options, self._thumbnails)
        except Exception as error:  # whatever it meets, scoring goes on
            found = [_not_written(type(error).__name__)]
        failed = any(not finding.name for finding in found)
        self._ended = self._clock()
        self._pause_s = max(REST * (self._ended - began), BUSY_S if failed else 0.0)
        if failed:
            self._fresh.set()
        for finding in found:
            if finding not in self._told:
                self._view.tell(finding)
        self._told = set(found)


def _not_written(cause: str) -> Finding:
    return Finding(FindingKind.NO_SUMMARY, "", f"the results could not be summarised: {cause}")
