"""A worker process as its parent sees it: started, talked to by JSON lines, waited for, killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import (
    BundleError,
    DiskError,
    EngineError,
    MppError,
    ParityError,
    ReadError,
    SlideError,
    StampError,
    UsageError,
)
from ...system.child_process import module_command
from ..options import STALL_S
from .sign_of_life import SignOfLife, WatchedClock

COMMAND = tuple(module_command("stamp_deploy.batch.workers.worker"))
END_S = 10.0
"""How long a process that ends is waited for."""
_ERRORS: dict[str, type[StampError]] = {
    cls.__name__: cls
    for cls in (BundleError, DiskError, EngineError, MppError, ParityError, ReadError, SlideError, UsageError)
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
    """A running worker process and the channel to it.

    ``eager``: it may prepare its first slide while it loads its engine.
    """

    def __init__(self, setup: WorkerConfig, *, eager: bool = True, clock: WatchedClock | None = None) -> None:
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
        self.life = SignOfLife(self._process.pid, clock or WatchedClock())
        self.send({**setup.config, "eager": eager})

    def send(self, message: dict[str, Any]) -> None:
        """Send one message; a worker that is gone is noticed by ``next_event``."""
        with contextlib.suppress(OSError):
            self.channel.sendall(json.dumps(message).encode() + b"\n")

    def next_event(self, timeout_s: float) -> dict[str, Any] | None:
        """The next event; None when none came in time, {"event": "gone"} when the worker has died."""
        deadline = time.monotonic() + timeout_s
        while True:
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
                self.life.seen()
            line, _, self._buffer = self._buffer.partition(b"\n")
            event: dict[str, Any] = json.loads(line)
            if event["event"] != "beat":
                return event

    def how_it_died(self) -> str:
        """In words, how the process ended."""
        try:
            code = self._process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            return "closed its channel"
        if code < 0:
            extra = " (perhaps out of memory)" if -code == signal.SIGKILL else ""
            return f"was killed by {signal.Signals(-code).name}{extra}"
        return f"exited with code {code}"

    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def was_told_to_stop(self) -> bool:
        """Whether it died of a signal that stops a job: a scheduler sends it to every process of a step."""
        return self._process.poll() in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)

    def was_killed(self) -> bool:
        """Whether it died of SIGKILL: by an operator or for lack of memory, not by a fault of its own."""
        return self._process.poll() == -signal.SIGKILL

    def kill(self) -> None:
        """End it, whatever it does, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in a dead file server cannot be ended
            self._process.wait(timeout=END_S)
        self.channel.close()
