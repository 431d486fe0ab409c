"""One attempt: a command on a hostile input, run in a forked process with limits, and what it left behind."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .world import World

LIMIT_S = 60.0
"""Wall time after which a command counts as hung; commands take well under a second on an idle machine."""
MEMORY_BYTES = 3 << 29
"""Resident memory that no command on these small inputs may reach."""
ADDRESS_SPACE_BYTES = 12 << 30
"""Keeps the machine alive whatever is attempted."""
RIGHT_S = 30.0


@dataclass(frozen=True)
class Attempt:
    """A command, and what may come of it.

    Attributes
    ----------
    what : str
        The kind of damage, for the table.
    subject : str
        File name that an error must show; empty where any will do.
    out : Path, optional
        Folder that must be there whole or not at all.
    codes : frozenset of int
        Exit codes that are right.
    right : callable, optional
        Asked when the command survived: what is wrong with its output, or "". Runs in a process of its own.
    one_line : bool
        Whether a refusal is exactly one line.
    blow : (signal, seconds), optional
        Sent to the command after so long.
    """

    what: str
    argv: tuple[str, ...]
    subject: str = ""
    out: Path | None = None
    codes: frozenset[int] = frozenset({0, 4})
    right: Callable[[], str] | None = None
    one_line: bool = True
    blow: tuple[int, float] | None = None


class Kind(Protocol):
    """A module of `kinds`: its share of the time, and how it makes an attempt out of a seed."""

    SHARE: float

    def make(self, choose: random.Random, folder: Path, world: World) -> Attempt: ...


@dataclass(frozen=True)
class Ran:
    """How a command ended. `code` is negative where a signal ended it."""

    code: int
    out: bytes
    err: bytes
    seconds: float
    rss_bytes: int
    hung: bool


def run(attempt: Attempt, folder: Path) -> Ran:
    """Run the attempt's command as the shell would, in a fork of this process, which has the libraries loaded."""

    from stamp_deploy.cli import main

    def work() -> int:
        sys.argv = ["stamp-deploy", *attempt.argv]
        try:
            main()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except KeyboardInterrupt:
            return 130  # as Python itself, before the command had begun to listen
        return 0

    return run_forked(work, folder, LIMIT_S, attempt.blow)


def ask(question: Callable[[], str], folder: Path) -> str:
    """What `question` answers, asked in a fork; "" is well."""

    def work() -> int:
        os.write(1, question().encode())
        return 0

    ran = run_forked(work, folder, RIGHT_S, None)
    if ran.code != 0:
        return f"the check of the output ended with {ran.code}: {ran.err.decode(errors='replace')[-600:]}"
    return ran.out.decode(errors="replace")


def run_forked(work: Callable[[], int], folder: Path, limit_s: float, blow: tuple[int, float] | None) -> Ran:
    """Do `work` in a child in its own session, with its output in files; end it when its time is over."""
    names = [folder / "stdout", folder / "stderr"]
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(work, folder, names)
    ended = os.pidfd_open(pid)
    hung = False
    try:
        if blow is not None and not select.select([ended], [], [], blow[1])[0]:
            os.kill(pid, blow[0])
        if not select.select([ended], [], [], max(0.0, started + limit_s - time.monotonic()))[0]:
            hung = True
            os.killpg(pid, signal.SIGKILL)
    finally:
        os.close(ended)
    _, status, usage = os.wait4(pid, 0)
    # a blow may come before the child has opened its files
    out, err = (name.read_bytes() if name.exists() else b"" for name in names)
    seconds = time.monotonic() - started
    return Ran(os.waitstatus_to_exitcode(status), out, err, seconds, usage.ru_maxrss * 1024, hung)


def _child(work: Callable[[], int], folder: Path, names: list[Path]) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, path in ((0, Path(os.devnull)), (1, names[0]), (2, names[1])):
            opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)
