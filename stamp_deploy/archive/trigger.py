"""What says which slides of an archive are due: the interface, and a search that is made again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Protocol

from .client import Client
from .query import SeriesRow, find_instances, find_recent
from .records import SeriesRecords

DAYS, SETTLE_S = 7, 60.0
_WINDOW = "window"


class Trigger(Protocol):
    """Gives series of slides."""

    def look(self) -> list[SeriesRow]:
        """Series that are complete; the same may be given again and again."""
        ...

    def pending(self) -> bool:
        """Whether series are known that are not complete yet."""
        ...

    def ended(self, row: SeriesRow, result: str, reason: str) -> None:
        """Hear that nothing is left to do for a series: `result` is the key of its result, or "" where it has none."""
        ...

    def all_ended(self) -> None:
        """Hear that nothing of what was given is left to do."""
        ...


class Search:
    """QIDO-RS over a window of study dates that overlaps the last one, so that nothing falls between two looks.

    Parameters
    ----------
    client, records
    is_known : callable
        Whether nothing is to be done for a series; such need not settle.
    days : int
        How far back the window reaches, before the day of the last look.
    settle_s : float
        Seconds that the number of a series' instances must not change, seen in two looks at least.
    clock, today : callable
        Seconds, monotonic; the day.
    """

    def __init__(
        self,
        client: Client,
        records: SeriesRecords,
        is_known: Callable[[SeriesRow], bool],
        *,
        days: int = DAYS,
        settle_s: float = SETTLE_S,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], date] = date.today,
    ) -> None:
        self._client, self._records, self._is_known = client, records, is_known
        self._days, self._settle_s = days, settle_s
        self._clock, self._today = clock, today
        self._seen: dict[str, tuple[int, float]] = {}
        self._unsettled = True

    def look(self) -> list[SeriesRow]:
        """See `Trigger.look`.

        Raises
        ------
        ArchiveError
        DiskError
        """
        today = self._today()
        first, last = self._last_look(today) - timedelta(days=self._days), today + timedelta(days=1)
        rows = find_recent(self._client, f"{first:%Y%m%d}", f"{last:%Y%m%d}")
        now, seen, ready = self._clock(), dict[str, tuple[int, float]](), []
        self._unsettled = False
        for row in rows:
            if self._is_known(row):
                continue
            if row.instances < 0:
                row = replace(row, instances=len(find_instances(self._client, row.study, row.series)))
            count, since = self._seen.get(row.series, (-1, now))
            is_first = count != row.instances
            seen[row.series] = (row.instances, now if is_first else since)
            if not is_first and now - since >= self._settle_s:
                ready.append(row)
            else:
                self._unsettled = True
        self._seen = seen
        return ready

    def pending(self) -> bool:
        """See `Trigger.pending`."""
        return self._unsettled

    def ended(self, row: SeriesRow, result: str, reason: str) -> None:
        """The record of the series says it all."""

    def all_ended(self) -> None:
        """Let the window move on: everything of this one is done."""
        today = self._today()
        if self._last_look(today) != today:
            self._records.write(_WINDOW, {"last_look": today.isoformat()})

    def _last_look(self, today: date) -> date:
        """The day up to which all is done; today where nothing is known."""
        try:
            return min(date.fromisoformat(self._records.read(_WINDOW)["last_look"]), today)
        except (KeyError, TypeError, ValueError):
            self._records.write(_WINDOW, {"last_look": today.isoformat()})
            return today
