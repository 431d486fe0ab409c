"""Workers that are stopped or silent are noticed and replaced; pauses of the parent are nobody's silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_batch_worker import Bench

from stamp_deploy.batch.workers import sign_of_life
from stamp_deploy.batch.workers.local import LocalExecutor
from stamp_deploy.batch.workers.process import WorkerConfig
from stamp_deploy.batch.workers.sign_of_life import LONGEST_LOOK_S, SILENT_S, SignOfLife, WatchedClock
from stamp_deploy.errors import EngineError


class Seconds:
    """A clock that stands still until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(sign_of_life.time, "monotonic", lambda: self.now)

    def pass_(self, seconds: float, clock: WatchedClock) -> None:
        """Let time pass, looking every second."""
        for _ in range(int(seconds)):
            self.now += 1.0
            clock.now()


@pytest.fixture
def idle() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process.pid
    process.kill()
    process.wait()


def test_a_silent_and_idle_process_is_lost(monkeypatch: pytest.MonkeyPatch, idle: int) -> None:
    monkeypatch.setattr(sign_of_life, "_processor_seconds", lambda pid: 7.0)
    seconds, clock = Seconds(monkeypatch), WatchedClock()
    life = SignOfLife(idle, clock)
    seconds.pass_(SILENT_S - 1, clock)
    assert not life.lost()
    seconds.pass_(2, clock)
    assert life.lost()
    life.seen()
    assert not life.lost()


@pytest.mark.parametrize(("share", "lost"), [(1.0, False), (0.03, True)])
def test_work_is_a_sign_of_life_and_waiting_for_a_lock_is_none(
    monkeypatch: pytest.MonkeyPatch, idle: int, share: float, lost: bool
) -> None:
    seconds, clock = Seconds(monkeypatch), WatchedClock()
    monkeypatch.setattr(sign_of_life, "_processor_seconds", lambda pid: seconds.now * share)
    life = SignOfLife(idle, clock)
    for _ in range(int(SILENT_S) + 2):
        seconds.pass_(1, clock)
        found = life.lost()
    assert found == lost


def test_processor_time_is_that_of_the_kernel() -> None:
    before = sign_of_life._processor_seconds(os.getpid())
    used = time.process_time()
    while time.process_time() - used < 0.1:
        pass
    assert sign_of_life._processor_seconds(os.getpid()) - before >= 0.05
    assert sign_of_life._processor_seconds(2**22 + 1) == 0.0


def test_a_pause_of_the_parent_is_no_silence_of_the_worker(monkeypatch: pytest.MonkeyPatch, idle: int) -> None:
    seconds, clock = Seconds(monkeypatch), WatchedClock()
    life = SignOfLife(idle, clock)
    seconds.now += 7200.0  # the scheduler suspended the job
    assert clock.now() == LONGEST_LOOK_S
    assert not life.lost()


def _stop_the_worker(when: Path) -> threading.Thread:
    """Stop the worker that names its process in a file, once it has."""

    def stop() -> None:
        while not when.exists() or not when.read_text():
            time.sleep(0.01)
        os.kill(int(when.read_text()), signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    return thread


def test_a_worker_stopped_while_loading_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_of_life, "SILENT_S", 3.0)
    bench = Bench(tmp_path, load_once=str(tmp_path / "pid"))
    bench.slide("a")
    bench.slide("b")
    stopper = _stop_the_worker(tmp_path / "pid")
    assert bench.run() == {"a": "done", "b": "done"}
    stopper.join()
    assert bench.restarts == ["lost"]
    assert {row.state for row in bench.ledger.attempts()} == {"done"}  # no slide was blamed


def test_a_worker_stopped_while_scoring_costs_no_slide_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_of_life, "SILENT_S", 3.0)
    bench = Bench(tmp_path)
    bench.slide("a", f"once at score name {tmp_path / 'pid'}")
    bench.slide("b")
    stopper = _stop_the_worker(tmp_path / "pid")
    assert bench.run() == {"a": "done", "b": "done"}
    stopper.join()
    assert bench.restarts == ["lost"]
    assert [row.state for row in bench.ledger.attempts("a")] == ["interrupted", "done"]
    assert bench.claims.attempts("a") == 0
    assert "was stopped by a signal" in bench.ledger.attempts("a")[0].reason


def test_a_worker_that_is_always_stopped_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_of_life, "SILENT_S", 2.0)
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    bench = Bench(tmp_path)
    bench.executor = LocalExecutor([WorkerConfig({}, tmp_path / "log", command=(sys.executable, "-c", code))])
    bench.slide("a")
    with pytest.raises(EngineError, match="was stopped by a signal while loading the engine"):
        bench.run()


def test_a_worker_that_died_while_idle_costs_no_slide_an_attempt(tmp_path: Path) -> None:
    """As when the kernel ends a process for want of memory in a quiet night of `watch`."""
    bench = Bench(tmp_path)
    bench.board.hold_open(True)
    bench.slide("a", f"at write name {tmp_path / 'pid'}")

    def kill_then_go_on() -> None:
        while "a" not in bench.board.settled:
            time.sleep(0.01)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        time.sleep(0.2)
        bench.slide("b")
        bench.board.hold_open(False)

    thread = threading.Thread(target=kill_then_go_on)
    thread.start()
    assert bench.run() == {"a": "done", "b": "done"}
    thread.join()
    assert [row.state for row in bench.ledger.attempts("b")] == ["done"]
