"""Slides that arrive in an archive, for a watch: fetched when complete, their results pushed, their files removed.

Of each slide there is one result, after any number of looks and restarts: a series whose result is there is passed
over, unless it has grown. What is fetched ahead of the scoring is bounded, and so is the disk that it needs.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..atomic import is_whole
from ..batch.arrivals import NORMAL
from ..batch.states import AttemptState
from ..errors import ArchiveError, ArchiveUnreachable, DiskError, ExitCode, StampError
from ..slide.dicom import slide_in_folder
from .client import Client
from .pull import pull_series
from .push import WebKeeper, push_result
from .query import SeriesRow
from .records import SeriesRecord, SeriesRecords
from .trigger import Trigger

POLL_S, AHEAD = 30.0, 2
LONGEST_PAUSE_S = 900.0
"""Between tries of a series that cannot be fetched or pushed, and of an archive that fails."""
Tell = Callable[[str, str], None]
"""Told what went wrong with which series ("" for none)."""


@dataclass(frozen=True)
class ArchiveWatch:
    """How an archive is watched.

    Attributes
    ----------
    slides : Path
        Folder for the slides that are being worked on.
    poll_s : float
        Seconds between looks.
    ahead : int
        Slides that may be here at once and have no result yet.
    push : bool
        Whether results go back into the archive.
    keep_slides : bool
        Whether slides stay here after they were scored.
    retry_failed : bool
        Try slides again that failed in an earlier run.
    """

    slides: Path
    poll_s: float = POLL_S
    ahead: int = AHEAD
    push: bool = True
    keep_slides: bool = False
    retry_failed: bool = False


@dataclass(frozen=True)
class _Again:
    """When something that failed is tried again."""

    failures: int
    due: float


class ArchiveArrivals:
    """See `batch.arrivals.Arrivals`.

    Parameters
    ----------
    client, records
    trigger : callable
        Makes what says which slides are due, given what knows the series that are done.
    how : ArchiveWatch
    out : Path
        The results.
    tell : callable
        Told of failures.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self,
        client: Client,
        records: SeriesRecords,
        trigger: Callable[[Callable[[SeriesRow], bool]], Trigger],
        how: ArchiveWatch,
        out: Path,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._records, self._how, self._out = client, records, how, out
        self._tell, self._clock = tell, clock
        self._trigger = trigger(self._is_known)
        self._waiting: dict[str, SeriesRow] = {}
        self._working: dict[Path, SeriesRow] = {}
        self._unpushed: dict[str, tuple[SeriesRow, SeriesRecord]] = {}
        self._again: dict[str, _Again] = {}
        self._settled: queue.SimpleQueue[tuple[Path, str, AttemptState]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._next_look, self._looks = 0.0, 0
        self._untold: set[str] = set()

    @property
    def exit_code(self) -> ExitCode:
        """Whether something is left that the archive did not give or take."""
        return ExitCode.ARCHIVE if self._again or self._unpushed or self._untold else ExitCode.OK

    def poll(self) -> list[tuple[Path, int]]:
        """See `Arrivals.poll`.

        Raises
        ------
        ArchiveError
            The first look is refused: something is wrong with the command.
        DiskError
        """
        self._follow_up()
        if self._clock() >= self._next_look and not self._stop.is_set():
            self._look()
        return self._fetch()

    def pending(self) -> bool:
        """See `Arrivals.pending`: what failed is not waited for."""
        waiting = any(series not in self._again for series in self._waiting)
        return waiting or not self._looks or self._trigger.pending()

    def settled(self, path: Path, key: str, state: AttemptState) -> None:
        """See `Arrivals.settled`."""
        self._settled.put((path, key, state))

    def stop(self) -> None:
        """See `Arrivals.stop`."""
        self._stop.set()
        self._client.stop()

    def finish(self) -> None:
        """See `Arrivals.finish`."""
        self._follow_up()

    def _is_known(self, row: SeriesRow) -> bool:
        """Whether nothing is to be done for a series; one whose result is only to be pushed is taken up here."""
        record = self._records.get(row.series)
        if record is None or (row.instances >= 0 and record.instances != row.instances):
            return False
        if record.state != AttemptState.DONE:
            return not self._how.retry_failed
        if not is_whole(self._out / record.key):
            return False
        if self._how.push and not record.pushed:
            self._unpushed.setdefault(row.series, (row, record))
        return True

    def _look(self) -> None:
        self._next_look = self._clock() + self._how.poll_s
        try:
            rows = self._trigger.look()
        except ArchiveError as error:
            if not self._looks and not isinstance(error, ArchiveUnreachable):
                raise
            self._failed("", error)
            if "" in self._again:  # else it was stopped
                self._next_look = self._again[""].due
            return
        self._looks += 1
        self._again.pop("", None)
        busy = {row.series for row in self._working.values()}
        for row in rows:
            if row.series in busy:
                continue
            if self._is_known(row):
                record = self._records.get(row.series)
                if record is not None and row.series not in self._unpushed:
                    self._tell_trigger(row, record)
            else:
                self._waiting[row.series] = row
        if not (self._waiting or self._working or self._unpushed or self._again):
            self._trigger.all_ended()

    def _fetch(self) -> list[tuple[Path, int]]:
        ready: list[tuple[Path, int]] = []
        for series, row in list(self._waiting.items()):
            if self._stop.is_set() or len(self._working) >= self._how.ahead:
                break
            if not self._is_due(series):
                continue
            try:
                got = pull_series(self._client, row, self._how.slides)
                path = slide_in_folder(got.folder)
            except DiskError:
                raise
            except StampError as error:
                self._failed(series, error)
                continue
            self._again.pop(series, None)
            del self._waiting[series]
            self._working[path] = row
            ready.append((path, NORMAL))
        return ready

    def _follow_up(self) -> None:
        """Note what has settled, push what is to be pushed, remove what is no longer needed."""
        while True:
            try:
                path, key, state = self._settled.get_nowait()
            except queue.Empty:
                break
            row = self._working.pop(path, None)
            if row is None:
                continue
            record = SeriesRecord(row.instances, key, state)
            self._records.put(row.series, record)
            if state == AttemptState.DONE and self._how.push:
                self._unpushed[row.series] = (row, record)
            else:
                self._ended(row, record)
        for series, (row, record) in list(self._unpushed.items()):
            if not self._stop.is_set() and self._is_due(series):
                self._push(row, record)

    def _push(self, row: SeriesRow, record: SeriesRecord) -> None:
        try:
            push_result(WebKeeper(self._client), self._out / record.key)
        except DiskError:
            raise
        except StampError as error:
            self._failed(row.series, error)
            return
        del self._unpushed[row.series]
        self._again.pop(row.series, None)
        record = replace(record, pushed=True)
        self._records.put(row.series, record)
        self._ended(row, record)

    def _ended(self, row: SeriesRow, record: SeriesRecord) -> None:
        self._tell_trigger(row, record)
        if record.state == AttemptState.DONE and not self._how.keep_slides:
            shutil.rmtree(self._how.slides / row.series, ignore_errors=True)

    def _tell_trigger(self, row: SeriesRow, record: SeriesRecord) -> None:
        is_done = record.state == AttemptState.DONE
        try:
            self._trigger.ended(row, record.key if is_done else "", "" if is_done else str(record.state))
            self._untold.discard(row.series)
        except ArchiveError as error:
            self._untold.add(row.series)
            self._tell(row.series, f"it could not be told that this slide is done: {error}; tried again")

    def _is_due(self, series: str) -> bool:
        again = self._again.get(series)
        return again is None or self._clock() >= again.due

    def _failed(self, series: str, error: StampError) -> None:
        if self._stop.is_set():
            return
        failures = self._again[series].failures + 1 if series in self._again else 1
        pause_s = min(LONGEST_PAUSE_S, self._how.poll_s * 2.0 ** min(failures - 1, 20))
        self._again[series] = _Again(failures, self._clock() + pause_s)
        self._tell(series, f"{error}; tried again in {pause_s:.0f} s")
