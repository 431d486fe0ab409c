"""A signal that another thread than the main one of a process takes, as the kernel may decide."""

from __future__ import annotations

import ctypes
import platform
import signal
import time
from pathlib import Path

import pytest

TGKILL = {"x86_64": 234, "aarch64": 131}
"""Number of the system call that signals one thread."""
LIMIT_S = 100.0


def signal_another_thread(pid: int, number: signal.Signals) -> None:
    """Signal a thread of a process that acts on the signal, once its main thread waits; there must be others."""
    if platform.machine() not in TGKILL:
        pytest.skip("the number of tgkill is not known here")
    until = time.monotonic() + LIMIT_S
    while not (_acts_on(pid, number) and _is_waiting(pid) and (others := _others(pid))):
        assert time.monotonic() < until, "no such thread"
        time.sleep(0.05)
    assert ctypes.CDLL(None).syscall(TGKILL[platform.machine()], pid, others[0], number) == 0


def _acts_on(pid: int, number: int) -> bool:
    caught = Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0]
    return bool(int(caught, 16) >> (number - 1) & 1)


def _is_waiting(pid: int) -> bool:
    """Whether the main thread used no time of the processor for a while."""
    before = _processor_time(pid)
    time.sleep(1)
    return _processor_time(pid) == before


def _processor_time(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]


def _others(pid: int) -> list[int]:
    return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir() if path.name != str(pid)]
