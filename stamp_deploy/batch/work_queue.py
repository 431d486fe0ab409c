"""The board: which slides wait, run and are settled, shared by all workers of one process.

It gives out a slide only after claiming it (claims.py), decides what a lost worker means for it (retry
once, then quarantine), and writes down every step (ledger.py). It knows nothing of how slides are scored.
"""

from __future__ import annotations

import heapq
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..atomic import disk_errors, is_whole, leftovers
from ..system.names import shown_name
from .options import STATE_FOLDER
from .records.claims import Claims
from .records.ledger import Ledger
from .states import AttemptState, OutcomeState
from .workers.tasks import Outcome, Settled, Task

SET_ASIDE = "set-aside"
"""Folder in the state folder for what lay where a result was to be made."""
MAX_ATTEMPTS = 2
"""Crashes or hangs after which a slide is quarantined."""
MAX_INTERRUPTIONS = 5
"""Lost nodes, or workers lost to the faults of others, in one run, after which a slide is quarantined too."""
LOOK_AGAIN_S = 2.0
"""How often a slide that another process holds is looked at."""


class Board:
    """Hands out tasks and takes outcomes; safe to use from many threads.

    Parameters
    ----------
    claims, ledger
        Those of the output folder.
    wait_for_others : bool
        Stay until slides that other processes hold are settled (and take over those they lose).
    retry_failed : bool
        Try slides again that failed or were quarantined in an earlier run.
    on_settled : callable, optional
        Called, without the lock, with each slide that reaches a final state.
    """

    def __init__(
        self,
        claims: Claims,
        ledger: Ledger,
        *,
        wait_for_others: bool = True,
        retry_failed: bool = False,
        on_settled: Callable[[Settled], None] | None = None,
    ) -> None:
        self._claims = claims
        self._ledger = ledger
        self._wait_for_others = wait_for_others
        self._retry_failed = retry_failed
        self._on_settled = on_settled or (lambda settled: None)
        self._ready: list[tuple[int, int, Task]] = []
        self._elsewhere: dict[str, tuple[Task, float]] = {}
        self._running: dict[str, tuple[Task, int]] = {}
        self._interruptions: dict[str, int] = {}
        self._sequence = 0
        self._open = False
        self._stopped = False
        self._changed = threading.Condition()
        self.settled: dict[str, Settled] = {}
        self.disk_error = ""

    def add(self, task: Task) -> None:
        """Put a slide on the board; equal priorities go in order of arrival."""
        with self._changed:
            if task.again:
                self.settled.pop(task.key, None)
            self._push(task)
            self._changed.notify_all()

    def hold_open(self, held: bool) -> None:
        """While held open (watching a folder), waiting workers are not told that the work is over."""
        with self._changed:
            self._open = held
            self._changed.notify_all()

    def stop(self) -> None:
        """Give out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self, *, wait: bool) -> Task | None:
        """See ``tasks.WorkSource.take``."""
        while True:
            notes: list[Settled] = []
            with self._changed:
                task = None if self._stopped else self._next(wait, notes)
                over = self._stopped or (task is None and wait and self._finished())
                if task is None and wait and not over and not notes:
                    self._changed.wait(timeout=LOOK_AGAIN_S / 4)
            for settled in notes:
                self._on_settled(settled)
            if task is not None or over or not wait:
                return task

    def finished(self) -> bool:
        """See ``tasks.WorkSource.finished``."""
        with self._changed:
            return self._stopped or self._finished()

    def outcome(self, outcome: Outcome) -> None:
        """Take the outcome of a task that was given out."""
        with self._changed:
            task, attempt = self._running.pop(outcome.key)
            state, again = self._judge(outcome)
            self._claims.release(task.key, state, outcome.reason)
            tiles = int(outcome.summary.get("tiles", {}).get("ok", 0))
            self._ledger.end(task.key, attempt, state, reason=outcome.reason, tiles=tiles, seconds=outcome.seconds)
            note = None
            if state.final:
                note = self._settle(
                    task.key, state, outcome.reason, attempt, outcome.seconds, "this process", outcome.summary
                )
            elif again:
                self._push(replace(task, solo=task.solo or state.counts))
            self._changed.notify_all()
        if note is not None:
            self._on_settled(note)

    def counts(self) -> tuple[int, int]:
        """Slides that wait (held by others included) and that run here."""
        with self._changed:
            return len(self._ready) + len(self._elsewhere), len(self._running)

    def _judge(self, outcome: Outcome) -> tuple[AttemptState, bool]:
        """What an outcome makes of its attempt, and whether the slide is to be tried again in this run."""
        if outcome.state == OutcomeState.DISK:
            self.disk_error = self.disk_error or outcome.reason
            self._stopped = True
            return AttemptState.INTERRUPTED, False
        state = AttemptState(outcome.state)
        again = False
        if state.counts:
            # The claim still says "running", so this attempt is not among the counted ones yet.
            again = self._claims.attempts(outcome.key) + 1 < MAX_ATTEMPTS
            state = state if again else AttemptState.QUARANTINED
        elif state == AttemptState.INTERRUPTED:
            again = not self._stopped
            self._interruptions[outcome.key] = self._interruptions.get(outcome.key, 0) + 1
            if again and self._interruptions[outcome.key] > MAX_INTERRUPTIONS:
                again, state = False, AttemptState.QUARANTINED
        return state, again

    def _push(self, task: Task) -> None:
        self._sequence += 1
        heapq.heappush(self._ready, (task.priority, self._sequence, task))

    def _next(self, idle: bool, notes: list[Settled]) -> Task | None:
        set_aside = []
        found = None
        while self._ready and found is None:
            item = heapq.heappop(self._ready)
            if item[2].solo and not idle:
                set_aside.append(item)
            else:
                found = self._try(item[2], notes)
        for item in set_aside:
            heapq.heappush(self._ready, item)
        if found is None:
            now = time.monotonic()
            for key, (task, when) in list(self._elsewhere.items()):
                if now >= when and found is None and (idle or not task.solo):
                    del self._elsewhere[key]
                    found = self._try(task, notes)
        return found

    def _try(self, task: Task, notes: list[Settled]) -> Task | None:
        """Claim a slide; or note that it is settled; or put it among those that others hold."""
        if is_whole(task.out):
            notes.append(self._done_elsewhere(task))
            return None
        # A retry is asked for once a run: a slide that failed in this run has its final word.
        again = task.again or (self._retry_failed and task.key not in self.settled)
        record = self._claims.take(task.key, retry_final=again)
        if record is None:
            latest = self._claims.latest(task.key)
            if latest is not None and latest.state.final and latest.state != AttemptState.DONE:
                notes.append(
                    self._settle(task.key, latest.state, latest.reason, latest.attempt, 0.0, "an earlier attempt")
                )
                return None
            if latest is not None and latest.state == AttemptState.DONE and not is_whole(task.out):
                # The result was deleted after it was finished: it is wanted again.
                record = self._claims.take(task.key, retry_final=True)
            if record is None:
                self._elsewhere[task.key] = (task, time.monotonic() + LOOK_AGAIN_S)
                return None
        if is_whole(task.out):  # finished between the look and the claim
            self._claims.release(task.key, AttemptState.DONE)
            notes.append(self._done_elsewhere(task))
            return None
        clear_place(task.out)
        self._running[task.key] = (task, record.attempt)
        self._ledger.start(task.key, record.attempt, shown_name(task.slide))
        return task

    def _done_elsewhere(self, task: Task) -> Settled:
        return self._settle(task.key, AttemptState.DONE, "finished by another process", 0, 0.0, "another process")

    def _settle(
        self, key: str, state: AttemptState, reason: str, attempts: int, seconds: float, by: str, summary: Any = None
    ) -> Settled:
        settled = Settled(key, state, reason, attempts, seconds, by, summary or {})
        self.settled[key] = settled
        return settled

    def _finished(self) -> bool:
        others = bool(self._elsewhere) and self._wait_for_others
        return not (self._ready or self._running or others or self._open)


def clear_place(out: Path) -> None:
    """Make room for a result; the caller holds its claim.

    What a killed worker left of an unfinished one is removed. A folder that is no whole result (files or its
    done-marker were deleted) is set aside, not deleted: somebody may have put something into it.
    """
    for leftover in leftovers(out):
        shutil.rmtree(leftover, ignore_errors=True)
    if os.path.lexists(out):
        with disk_errors(out):
            aside = out.parent / STATE_FOLDER / SET_ASIDE
            aside.mkdir(parents=True, exist_ok=True)
            os.rename(out, aside / f"{out.name}.{secrets.token_hex(4)}")
