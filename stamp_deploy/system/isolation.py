"""A command that survives its own crash: the work is done by a child, and the parent says what became of it.

Decoders are C, and a damaged slide can end the process that reads it. `run_isolated` forks before any library is
loaded, which takes about a millisecond; the child works as if it were alone, on the same terminal. The parent passes
signals on, ends a child that outlasts its time limit or does not stop, removes what it was staging, and turns a crash
into an error that names the slide.

Stopping is not left to an exception alone: a library that is being imported, or a callback, can swallow one. The
handler also leaves word, `check_stop` asks for it wherever the main thread passes, and nothing is published after it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..errors import BundleError, ExitCode, SlideError, StampError

STOPPED = 130
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_GRACE_S = 15.0
"""A child that was told to stop and works on for so long is killed."""
LIMIT_GRACE_S = 3.0
"""A child that cannot look at its time limit, because a decoder keeps it, is killed so long after it."""
AGAIN_S = 1.0
"""A signal that follows another within so long is the same one: Ctrl-C reaches child and parent."""
_TICK_S = 0.2
_PR_SET_PDEATHSIG = 1

_stopped_at: float | None = None
_notes: int | None = None


def check_stop() -> None:
    """Stop here if a signal asked for it.

    Raises
    ------
    KeyboardInterrupt
        SIGINT, SIGTERM or SIGHUP came, even if the first interrupt was swallowed on its way.
    """
    if _stopped_at is not None:
        raise KeyboardInterrupt


def stop_asked() -> bool:
    """Whether a signal asked this process to stop, since its handlers were installed."""
    return _stopped_at is not None


def install_stop_handlers() -> None:
    """SIGTERM and SIGHUP stop like Ctrl-C; one signal interrupts once, however many ways it comes."""
    global _stopped_at
    _stopped_at = None
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_stop)


def _on_stop(number: int, frame: FrameType | None) -> None:
    global _stopped_at
    now = time.monotonic()
    if _stopped_at is None or now > _stopped_at + AGAIN_S:
        _stopped_at = now
        raise KeyboardInterrupt


def note(**fields: Any) -> None:
    """Tell the parent, where there is one, what is being worked on: slide, stage, deadline, staging, exit."""
    if _notes is not None:
        with contextlib.suppress(OSError):
            os.write(_notes, json.dumps(fields).encode() + b"\n")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux), also while a decoder hangs."""
    import ctypes  # not at the top: each command would wait for it

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(int(ExitCode.BUG))


def can_isolate() -> bool:
    """Whether this process may be forked: one thread, and its own streams; not a notebook or a test."""
    try:
        alone = len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False
    return alone and sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__


def run_isolated(work: Callable[[], int]) -> int:
    """Do `work` in a forked child and wait for it.

    Returns
    -------
    int
        What `work` returned, whatever its libraries do afterwards; or STOPPED.

    Raises
    ------
    SlideError
        The child crashed, or did not end within the slide's time limit.
    BundleError
        It crashed while it loaded the bundle.
    StampError
        It crashed with neither in hand.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    waited = {number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN} | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(work, writing, parent, before)
    os.close(writing)
    os.set_blocking(reading, False)
    try:
        return _Watch(pid, reading, waited).wait()
    finally:
        os.close(reading)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(work: Callable[[], int], notes: int, parent: int, mask: set[int | signal.Signals]) -> None:
    """Work, tell the code, and end without the destructors of libraries: HDF5's crash after a full disk."""
    global _notes
    code = int(ExitCode.BUG)
    try:
        os.set_blocking(notes, False)
        _notes = notes
        die_with_parent(parent)
        install_stop_handlers()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = work()
    except KeyboardInterrupt:  # before `work` could take it: the signal had been waiting
        code = STOPPED
        with contextlib.suppress(BaseException):
            print("stamp-deploy: stopped; nothing was left half-written", file=sys.stderr)
    finally:
        note(exit=code)
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
            atexit._run_exitfuncs()
        os._exit(code)


class _Watch:
    """The parent's view of its child."""

    def __init__(self, pid: int, notes: int, waited: set[signal.Signals]) -> None:
        self._pid, self._notes, self._waited = pid, notes, waited
        self._known: dict[str, Any] = {}
        self._rest = b""
        self._told_to_stop: float | None = None
        self._late = False

    def wait(self) -> int:
        while True:
            got = signal.sigtimedwait(self._waited, _TICK_S)
            self._read_notes()
            if got is not None and got.si_signo != signal.SIGCHLD:
                self._stop_child()
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._read_notes()
                return self._ended(os.waitstatus_to_exitcode(status))
            self._check_time()

    def _read_notes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._notes, 1 << 16):
                self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                self._known.update(json.loads(line))

    def _stop_child(self) -> None:
        """Pass a stop on; one that comes again later is meant: kill."""
        now = time.monotonic()
        again = self._told_to_stop is not None and now > self._told_to_stop + AGAIN_S
        self._told_to_stop = self._told_to_stop or now
        self._send(signal.SIGKILL if again else signal.SIGTERM)

    def _check_time(self) -> None:
        now = time.monotonic()
        deadline = self._known.get("deadline")
        if self._told_to_stop is not None and now > self._told_to_stop + STOP_GRACE_S:
            self._send(signal.SIGKILL)
        elif deadline is not None and now > deadline + LIMIT_GRACE_S:
            self._late = True
            self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def _ended(self, code: int) -> int:
        told = self._known.get("exit")
        if code >= 0 or told is not None:
            return int(code if told is None else told)
        self._clear_up()
        if self._told_to_stop is not None:
            print("stamp-deploy: stopped; nothing was left half-written", file=sys.stderr)
            return STOPPED
        raise self._crash(signal.Signals(-code))

    def _clear_up(self) -> None:
        staging = self._known.get("staging")
        if staging:
            shutil.rmtree(staging, ignore_errors=True)

    def _crash(self, number: signal.Signals) -> StampError:
        slide, stage = self._known.get("slide"), self._known.get("stage", "starting")
        if self._late:
            return SlideError(
                f"was given up: {stage} took longer than the time limit allows",
                path=slide,
                remedy="raise --time-limit, or look at the slide with `stamp-deploy inspect`",
            )
        memory = " (perhaps out of memory)" if number == signal.SIGKILL else ""
        cause = f"the process was ended by {number.name}{memory} while {stage}"
        if slide is not None:
            remedy = "the file may be damaged: copy or scan it again; where every slide ends so, try another --engine"
            return SlideError(cause, path=slide, remedy=remedy)
        if self._known.get("bundle") is not None:
            return BundleError(cause, path=self._known["bundle"], remedy="check it with `stamp-deploy verify`")
        return StampError(cause, remedy="please report it")
