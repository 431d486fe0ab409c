"""The parent's side of a worker process: start it, feed it, watch it, replace it.

Blame: a slide whose stage makes no headway for ``stall_s`` has hung, and its worker is killed. When a
worker dies by itself every slide in it is suspect: each is marked crashed and tried once more, alone.
A slide that crashes or hangs a second time is quarantined (by the board); the innocent ones get through.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .batch_plan import SlideFacts
from .errors import (
    BundleError,
    DiskError,
    EngineError,
    ExitCode,
    MppError,
    ParityError,
    SlideError,
    StampError,
    UsageError,
)
from .tasks import Listener, Outcome, Task, WorkSource

STALL_S = 300.0
START_LIMIT_S = 3600.0
"""Loading an engine may mean building it."""
LOOKAHEAD = 3
"""Slides in a worker: one being written, one in the engine, one being decoded."""
COMMAND = (sys.executable, "-m", "stamp_deploy.worker_child")
_ERRORS: dict[str, type[StampError]] = {
    cls.__name__: cls
    for cls in (BundleError, DiskError, EngineError, MppError, ParityError, SlideError, UsageError)
}


def rebuild_error(described: dict[str, Any], path: Path | None = None) -> StampError:
    """The StampError that a worker described."""
    cls = _ERRORS.get(described["type"], StampError)
    return cls(described["cause"], remedy=described["remedy"], path=path)


@dataclass(frozen=True)
class WorkerConfig:
    """How worker processes are started.

    ``cpus`` are the cores a worker is bound to (empty: all); ``environment`` is added to its own (as
    CUDA_VISIBLE_DEVICES). ``log`` is the file for what its libraries print; ``command`` its program.
    """

    config: dict[str, Any]
    log: Path
    cpus: tuple[int, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    command: Sequence[str] = COMMAND
    stall_s: float = STALL_S


class ChildProcess:
    """A running worker process and the channel to it."""

    def __init__(self, setup: WorkerConfig) -> None:
        ours, theirs = socket.socketpair()
        self.channel = ours
        self._buffer = b""
        environment = {**os.environ, **dict(setup.environment)}
        try:
            with open(setup.log, "ab") as log:
                self._process = subprocess.Popen(
                    [*setup.command, str(theirs.fileno()), str(os.getpid())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is the parent's to handle
                )
        except OSError as error:
            ours.close()
            raise DiskError(f"a worker cannot be started: {error.strerror}", path=setup.log) from error
        finally:
            theirs.close()
        if setup.cpus:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._process.pid, setup.cpus)
        self.send(setup.config)

    def send(self, message: dict[str, Any]) -> None:
        """Send one message; a worker that is gone is noticed by ``next_event``."""
        with contextlib.suppress(OSError):
            self.channel.sendall(json.dumps(message).encode() + b"\n")

    def next_event(self, timeout_s: float) -> dict[str, Any] | None:
        """The next event; None when none came in time, {"event": "gone"} when the worker has died."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.channel], [], [], left)[0]:
                return None
            try:
                data = self.channel.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                return {"event": "gone"}
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    def how_it_died(self) -> str:
        """In words, how the process ended."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "closed its channel"
        if code < 0:
            extra = " (perhaps out of memory)" if -code == signal.SIGKILL else ""
            return f"was killed by {signal.Signals(-code).name}{extra}"
        return f"exited with code {code}"

    def kill(self) -> None:
        """End it, whatever it does, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self.channel.close()


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
                self._fill(source)
                if not self._work:
                    return
                self._step(listener)
        finally:
            if self._child is not None:
                self._child.kill()
                self._child = None
            for work in list(self._work.values()):
                self._end(work, listener, "interrupted", "the batch was stopped")

    def _fill(self, source: WorkSource) -> None:
        while len(self._work) < LOOKAHEAD and not any(work.task.solo for work in self._work.values()):
            task = source.take(wait=not self._work)
            if task is None:
                return
            now = time.monotonic()
            self._work[task.key] = _InWork(task, now, "queued", now)
            if self._child is None:
                self._start()
            assert self._child is not None
            self._child.send({"op": "run", **task.to_dict()})

    def _start(self) -> None:
        child = self._child = ChildProcess(self._setup)
        deadline = time.monotonic() + START_LIMIT_S
        while not self._stopped:
            event = child.next_event(1.0)
            if event is None and time.monotonic() < deadline:
                continue
            if event is not None and event["event"] == "ready":
                self.engine = event.get("engine", "")
                now = time.monotonic()
                for work in self._work.values():
                    work.stage_since = now
                return
            if event is not None and event["event"] == "fatal":
                raise rebuild_error(event["error"])
            how = "did not become ready in time" if event is None else child.how_it_died()
            raise EngineError(
                f"the worker {how} while loading the engine",
                remedy=f"see {self._setup.log.name} in the output's .stamp folder; try another --engine",
            )

    def _step(self, listener: Listener) -> None:
        child = self._child
        if child is None:
            return
        event = child.next_event(0.5)
        if event is None:
            self._check_stall(child, listener)
            return
        name = event["event"]
        if name == "gone":
            self._crashed(child, listener)
            return
        work = self._work.get(event["key"])
        if work is None:
            return
        work.stage_since = time.monotonic()
        if name == "stage":
            work.stage = event["stage"]
        elif name == "progress":
            listener.progress(work.task.key, event["done"], event["total"])
        elif name == "done":
            self._end(work, listener, "done", "", event["summary"])
        elif name == "failed":
            self._failed(work, listener, event["error"])
        self._check_stall(child, listener)

    def _failed(self, work: _InWork, listener: Listener, error: dict[str, Any]) -> None:
        state = "disk" if error["exit_code"] == ExitCode.DISK else "failed"
        reason = f"{error['cause']} - {error['remedy']}" if error["remedy"] else error["cause"]
        self._end(work, listener, state, reason, {"error": error})

    def _crashed(self, child: ChildProcess, listener: Listener) -> None:
        how = child.how_it_died()
        self._replace(listener, "crashed")
        for work in list(self._work.values()):
            if work.stage == "queued" and len(self._work) > 1:
                self._end(work, listener, "interrupted", f"its worker {how} before it was opened")
            else:
                self._end(work, listener, "crashed", f"the worker {how} while {work.stage}")

    def _check_stall(self, child: ChildProcess, listener: Listener) -> None:
        now = time.monotonic()
        moving = ("preparing", "scoring", "writing")
        hung = [
            w for w in self._work.values() if w.stage in moving and now - w.stage_since > self._setup.stall_s
        ]
        if not hung:
            return
        self._replace(listener, "timeout")
        for work in list(self._work.values()):
            if work in hung:
                self._end(
                    work, listener, "timeout", f"no headway for {self._setup.stall_s:g} s while {work.stage}"
                )
            else:
                self._end(work, listener, "interrupted", "its worker was replaced because another slide hung")

    def _replace(self, listener: Listener, cause: str) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None
        listener.restarted(cause)

    def _end(
        self,
        work: _InWork,
        listener: Listener,
        state: str,
        reason: str,
        summary: dict[str, Any] | None = None,
    ) -> None:
        del self._work[work.task.key]
        listener.outcome(
            Outcome(work.task.key, state, reason, round(time.monotonic() - work.started, 3), summary or {})
        )


class SafeProbe:
    """Opens slides in a child process, for planning; replaced when a slide crashes or hangs it."""

    def __init__(self, setup: WorkerConfig, *, limit_s: float = 60.0) -> None:
        self._setup = setup
        self._limit_s = limit_s
        self._child: ChildProcess | None = None

    def __call__(self, slide: Path, mpp: float | None) -> SlideFacts:
        """Facts of a slide.

        Raises
        ------
        SlideError, MppError
            As ``open_slide``, or because the slide crashes or hangs the reader.
        """
        child = self._child or self._start()
        child.send({"op": "probe", "key": "probe", "slide": str(slide), "mpp": mpp})
        event = child.next_event(self._limit_s)
        if event is not None and event["event"] == "probed":
            return SlideFacts(**event["facts"])
        if event is not None and event["event"] == "probe-failed":
            raise rebuild_error(event["error"], slide)
        how = f"hung for {self._limit_s:g} s" if event is None else child.how_it_died()
        self.close()
        raise SlideError(
            f"the reader {how} on opening it", remedy="the file is damaged; copy it again", path=slide
        )

    def _start(self) -> ChildProcess:
        self._child = ChildProcess(self._setup)
        event = self._child.next_event(self._limit_s)
        if event is None or event["event"] != "ready":
            self.close()
            raise EngineError(
                "the process that opens slides cannot be started", remedy="see the log in .stamp"
            )
        return self._child

    def close(self) -> None:
        """End the child process."""
        if self._child is not None:
            self._child.kill()
            self._child = None
