"""The supervisor of a worker process: start it, feed it, watch it, replace it.

Blame: a slide whose stage makes no progress for ``stall_s`` has hung, and its worker is killed. When a
worker dies by itself every slide in it is suspect: each is marked crashed and tried once more, alone.
A slide that crashes or hangs a second time is quarantined (by the board); the innocent ones get through.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ...errors import EngineError, ExitCode
from ...system.isolation import LIMIT_GRACE_S
from ..states import OutcomeState
from .process import ChildProcess, WorkerConfig, rebuild_error
from .sign_of_life import SILENT_S, WatchedClock
from .tasks import Listener, Outcome, Task, WorkSource

START_LIMIT_S = 3600.0
"""Loading an engine may mean building it."""
LOOKAHEAD = 3
"""Slides in a worker: one being written, one in the engine, one being decoded."""
MOVING = ("preparing", "scoring", "writing")
"""Stages in which a slide is worked on."""
STOP_GRACE_S = 5.0
"""When a worker was told to stop, the parent's own signal is due within so long."""


@dataclass
class _InWork:
    task: Task
    started: float
    stage: str
    stage_since: float


class Supervisor:
    """Keeps one worker process busy from a source until the source is exhausted."""

    def __init__(self, setup: WorkerConfig) -> None:
        self._setup = setup
        self._child: ChildProcess | None = None
        self._clock = WatchedClock()
        self._work: dict[str, _InWork] = {}
        self._stopped = False
        self.engine = ""

    def stop(self) -> None:
        """Abandon the work; ``run`` returns soon. May be called from any thread."""
        self._stopped = True

    def run(self, source: WorkSource, listener: Listener) -> None:
        """Work until there is nothing left.

        Raises
        ------
        StampError
            When a worker cannot start: a bad bundle or engine would fail for every slide.
        """
        try:
            while not self._stopped:
                self._fill(source, listener)
                if not self._work:
                    return
                self._step(listener)
        finally:
            if self._child is not None:
                self._child.kill()
                self._child = None
            for work in list(self._work.values()):
                self._end(work, listener, OutcomeState.INTERRUPTED, "the batch was stopped")

    def _fill(self, source: WorkSource, listener: Listener) -> None:
        while len(self._work) < LOOKAHEAD and not any(work.task.solo for work in self._work.values()):
            idle = not self._work
            task = source.take(wait=idle)
            if task is None:
                return
            if idle and self._child is not None and self._child.is_gone():  # it had nothing to do: no slide's fault
                self._replace(listener, "crashed")
            work = self._work[task.key] = _InWork(task, time.monotonic(), "queued", self._clock.now())
            if self._child is None:
                self._start(work, listener)
            else:
                self._child.send({"op": "run", **task.to_dict()})

    def _start(self, first: _InWork, listener: Listener) -> None:
        """Start a worker with its first slide and wait until it has its engine.

        The slide is prepared meanwhile, unless it has crashed before. A worker that is killed, or that dies when that
        slide could be the reason, gets a successor, once, that loads its engine first.
        """
        for last in (False, True):
            child = self._child = ChildProcess(self._setup, eager=not (last or first.task.solo), clock=self._clock)
            if first.task.key in self._work:  # it may have failed in the worker before
                child.send({"op": "run", **first.task.to_dict()})
            if self._wait_until_ready(child, first, listener, last):
                return
            self._replace(listener, "lost" if child.life.lost() else "crashed")
            first.stage = "queued"

    def _wait_until_ready(self, child: ChildProcess, first: _InWork, listener: Listener, last: bool) -> bool:
        deadline = self._clock.now() + START_LIMIT_S
        while not self._stopped:
            event = child.next_event(1.0)
            lost = child.life.lost()
            if event is None and not lost and self._clock.now() < deadline:
                continue
            if lost and not last:
                return False
            if event is not None and "key" in event:
                self._take(event, listener)
                continue
            if event is not None and event["event"] == "ready":
                self.engine = event.get("engine", "")
                now = self._clock.now()
                for work in self._work.values():
                    work.stage_since = now
                return True
            if event is not None and event["event"] == "fatal":
                raise rebuild_error(event["error"])
            if event is not None and self._stopping(child):
                return True
            if event is not None and not last and (child.was_killed() or first.stage != "queued"):
                return False
            if lost:
                how = _how_it_was_lost(child)
            else:
                how = "did not become ready in time" if event is None else child.how_it_died()
            raise EngineError(
                f"the worker {how} while loading the engine",
                remedy=f"see {self._setup.log.name} in the output's .stamp folder; try another --engine",
            )
        return True

    def _step(self, listener: Listener) -> None:
        child = self._child
        if child is None:
            return
        event = child.next_event(0.5)
        if event is not None and event["event"] == "gone":
            self._crashed(child, listener)
            return
        if event is not None:
            self._take(event, listener)
        if child.life.lost():
            self._lost(child, listener)
        else:
            self._check_stall(listener)

    def _take(self, event: dict[str, Any], listener: Listener) -> None:
        """One event of a slide. A worker that was being loaded when the batch was stopped may say "ready" still."""
        name, work = event["event"], self._work.get(event.get("key", ""))
        if work is None:
            return
        work.stage_since = self._clock.now()
        if name == "stage":
            work.stage = event["stage"]
        elif name == "progress":
            listener.progress(work.task.key, event["done"], event["total"])
        elif name == "done":
            self._end(work, listener, OutcomeState.DONE, "", event["summary"])
        elif name == "failed":
            self._failed(work, listener, event["error"])

    def _failed(self, work: _InWork, listener: Listener, error: dict[str, Any]) -> None:
        state = OutcomeState.DISK if error["exit_code"] == ExitCode.DISK else OutcomeState.FAILED
        reason = f"{error['cause']} - {error['remedy']}" if error["remedy"] else error["cause"]
        self._end(work, listener, state, reason, {"error": error})

    def _stopping(self, child: ChildProcess) -> bool:
        """Whether a dead worker was stopped together with us, rather than by a slide or an engine."""
        child.how_it_died()
        deadline = time.monotonic() + STOP_GRACE_S
        while child.was_told_to_stop() and not self._stopped and time.monotonic() < deadline:
            time.sleep(0.05)
        return self._stopped

    def _crashed(self, child: ChildProcess, listener: Listener) -> None:
        if self._stopping(child):
            return
        how = child.how_it_died()
        self._replace(listener, "crashed")
        for work in list(self._work.values()):
            if work.stage == "queued" and len(self._work) > 1:
                self._end(work, listener, OutcomeState.INTERRUPTED, f"its worker {how} before it was opened")
            else:
                self._end(work, listener, OutcomeState.CRASHED, f"the worker {how} while {work.stage}")

    def _lost(self, child: ChildProcess, listener: Listener) -> None:
        """The worker gives no sign of life: a slide that was being worked on may be why, unless somebody stopped it."""
        how, stopped = _how_it_was_lost(child), child.life.is_stopped()
        self._replace(listener, "lost")
        for work in list(self._work.values()):
            if stopped or work.stage not in MOVING:
                self._end(work, listener, OutcomeState.INTERRUPTED, f"its worker {how}")
            else:
                self._end(work, listener, OutcomeState.TIMEOUT, f"the worker {how} while {work.stage}")

    def _check_stall(self, listener: Listener) -> None:
        now = self._clock.now()
        hung = [w for w in self._work.values() if w.stage in MOVING and now - w.stage_since > self._limit_s(w.stage)]
        if not hung:
            return
        self._replace(listener, "timeout")
        for work in list(self._work.values()):
            if work in hung:
                self._end(
                    work,
                    listener,
                    OutcomeState.TIMEOUT,
                    f"no progress for {self._limit_s(work.stage):g} s while {work.stage}",
                )
            else:
                self._end(
                    work, listener, OutcomeState.INTERRUPTED, "its worker was replaced because another slide hung"
                )

    def _limit_s(self, stage: str) -> float:
        """Seconds without progress that a stage may have: a slide must be opened within its time limit."""
        limit_s = self._setup.config.get("options", {}).get("time_limit_s")
        if stage != "preparing" or limit_s is None:
            return self._setup.stall_s
        return min(self._setup.stall_s, float(limit_s) + LIMIT_GRACE_S)

    def _replace(self, listener: Listener, cause: str) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None
        listener.restarted(cause)

    def _end(
        self,
        work: _InWork,
        listener: Listener,
        state: OutcomeState,
        reason: str,
        summary: dict[str, Any] | None = None,
    ) -> None:
        del self._work[work.task.key]
        listener.outcome(
            Outcome(work.task.key, state, reason, round(time.monotonic() - work.started, 3), summary or {})
        )


def _how_it_was_lost(child: ChildProcess) -> str:
    return "was stopped by a signal" if child.life.is_stopped() else f"gave no sign of life for {SILENT_S:g} s"
