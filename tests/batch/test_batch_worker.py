"""Workers that crash, hang and fail: blame, retries, quarantine, and nothing lost on the way."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stamp_deploy.atomic import is_done
from stamp_deploy.batch.planning.inputs import find_slides
from stamp_deploy.batch.planning.probe import SafeProbe
from stamp_deploy.batch.records.claims import Claims
from stamp_deploy.batch.records.ledger import Ledger
from stamp_deploy.batch.work_queue import Board
from stamp_deploy.batch.workers.local import LocalExecutor, worker_setups
from stamp_deploy.batch.workers.process import ChildProcess, WorkerConfig, rebuild_error
from stamp_deploy.batch.workers.supervisor import Supervisor
from stamp_deploy.batch.workers.tasks import Outcome, Task
from stamp_deploy.errors import EngineError, MppError, SlideError, StampError

FAKE = (sys.executable, str(Path(__file__).parents[1] / "support" / "fake_worker.py"))


class Bench:
    """A board, an executor with scripted workers, and a record of what was heard."""

    def __init__(self, folder: Path, *, workers: int = 1, stall_s: float = 30.0, **config: Any) -> None:
        self.folder = folder
        state = folder / "out" / ".stamp"
        self.claims = Claims(state / "claims")
        self.ledger = Ledger(state, "host")
        self.board = Board(self.claims, self.ledger)
        self.heard: list[Outcome] = []
        self.restarts: list[str] = []
        setup = WorkerConfig(config, state / "log", command=FAKE, stall_s=stall_s)
        self.executor = LocalExecutor([setup] * workers)

    def slide(self, name: str, script: str = "") -> Task:
        path = self.folder / f"{name}.txt"
        path.write_text(script)
        task = Task(name, path, self.folder / "out" / name)
        self.board.add(task)
        return task

    def run(self) -> dict[str, str]:
        self.executor.run(self.board, self)
        self.claims.close()
        return {key: settled.state for key, settled in self.board.settled.items()}

    def outcome(self, outcome: Outcome) -> None:
        self.heard.append(outcome)
        self.board.outcome(outcome)
        if outcome.state == "disk":
            self.executor.stop()

    def progress(self, key: str, done: int, total: int) -> None:
        assert 0 < done <= total == 2

    def restarted(self, cause: str) -> None:
        self.restarts.append(cause)


def test_good_slides_all_finish_on_two_workers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, workers=2)
    tasks = [bench.slide(f"s{i}") for i in range(12)]
    assert bench.run() == {task.key: "done" for task in tasks}
    assert all(is_done(task.out) for task in tasks)
    assert bench.restarts == []


@pytest.mark.parametrize("stage", ["prepare", "score", "write"])
def test_crashing_slide_is_retried_once_then_quarantined_and_the_others_finish(tmp_path: Path, stage: str) -> None:
    bench = Bench(tmp_path)
    for name in "abcde":
        bench.slide(name, f"at {stage} crash" if name == "c" else "")
    assert bench.run() == {"a": "done", "b": "done", "c": "quarantined", "d": "done", "e": "done"}
    assert "SIGSEGV" in bench.board.settled["c"].reason
    assert [row.state for row in bench.ledger.attempts("c")] == ["crashed", "quarantined"]
    assert bench.restarts == ["crashed", "crashed"]


def test_slide_that_crashes_once_succeeds_on_the_retry(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.slide("a", "once at score crash")
    bench.slide("b")
    assert bench.run() == {"a": "done", "b": "done"}
    assert [row.state for row in bench.ledger.attempts("a")] == ["crashed", "done"]


def test_hanging_slide_is_named_and_costs_no_other_slide_an_attempt(tmp_path: Path) -> None:
    bench = Bench(tmp_path, stall_s=0.7)
    bench.slide("a", "at score hang")
    bench.slide("b")
    bench.slide("c")
    assert bench.run() == {"a": "quarantined", "b": "done", "c": "done"}
    assert "no progress for 0.7 s while scoring" in bench.board.settled["a"].reason
    assert [row.state for row in bench.ledger.attempts("a")] == ["timeout", "quarantined"]
    assert {row.state for row in bench.ledger.attempts("b")} <= {"interrupted", "done"}


def test_stated_errors_and_bugs_are_final_and_need_no_new_worker(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.slide("a", "at prepare error")
    bench.slide("b", "at write bug")
    bench.slide("c")
    assert bench.run() == {"a": "failed", "b": "failed", "c": "done"}
    assert bench.board.settled["a"].reason == "12 of 20 tissue tiles are unreadable - scan it again"
    assert "ZeroDivisionError" in bench.board.settled["b"].reason
    assert bench.restarts == []
    assert "Traceback" in (tmp_path / "out" / ".stamp" / "log").read_text()


def test_full_disk_stops_the_batch_and_blames_no_slide(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.slide("a", "at write disk")
    for name in "bcdefgh":
        bench.slide(name, "at score sleep 0.3")
    states = bench.run()
    assert bench.board.disk_error == "no space left on device"
    assert "failed" not in states.values() and "a" not in states
    assert bench.ledger.attempts("a")[-1].state == "interrupted"


def test_worker_that_cannot_start_ends_the_run_with_its_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path, workers=2, fatal=True)
    bench.slide("a")
    with pytest.raises(SlideError, match="no engine"):
        bench.run()
    assert bench.ledger.attempts("a")[-1].state == "interrupted"


def test_worker_that_dies_at_its_start_is_an_engine_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    setup = WorkerConfig({}, tmp_path / "log", command=(sys.executable, "-c", "import sys; sys.exit(7)"))
    bench.executor = LocalExecutor([setup])
    bench.slide("a")
    with pytest.raises(EngineError, match="exited with code 7 while loading the engine"):
        bench.run()


def test_a_batch_stopped_while_its_worker_loads_ends_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    task = bench.slide("a")
    supervisor = Supervisor(WorkerConfig({}, tmp_path / "out" / ".stamp" / "log", command=FAKE))
    listen = ChildProcess.next_event

    def stopped_meanwhile(child: ChildProcess, timeout_s: float) -> dict[str, Any] | None:
        if not supervisor._stopped:
            supervisor.stop()
            return None
        while "key" in (event := listen(child, 60.0) or {}):
            pass
        return event  # "ready"

    monkeypatch.setattr(ChildProcess, "next_event", stopped_meanwhile)
    supervisor.run(bench.board, bench)
    bench.claims.close()
    assert [(outcome.key, outcome.state) for outcome in bench.heard] == [(task.key, "interrupted")]


def test_first_slide_is_prepared_while_the_engine_loads(tmp_path: Path) -> None:
    bench = Bench(tmp_path, load_after=str(tmp_path / "a.begun"))
    bench.slide("a")
    bench.slide("b")
    assert bench.run() == {"a": "done", "b": "done"}


def test_slide_that_crashes_while_the_engine_loads_is_to_blame_not_the_engine(tmp_path: Path) -> None:
    bench = Bench(tmp_path, load_after=str(tmp_path / "a.begun"))
    bench.slide("a", "at prepare crash")
    bench.slide("b")
    assert bench.run() == {"a": "quarantined", "b": "done"}
    assert "SIGSEGV while preparing" in bench.board.settled["a"].reason


def test_worker_dies_with_its_parent(tmp_path: Path) -> None:
    slide = tmp_path / "s.txt"
    slide.write_text("at score hang")
    child = ChildProcess(WorkerConfig({}, tmp_path / "log", command=FAKE))
    assert child.next_event(20.0) is not None
    child.send({"op": "run", **Task("s", slide, tmp_path / "s").to_dict()})
    while (child.next_event(20.0) or {}).get("stage") != "scoring":
        pass
    child.channel.close()  # as when the parent is killed
    deadline = time.monotonic() + 10
    while child._process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert child._process.poll() == 3


def test_probe_survives_slides_that_crash_and_hang(tmp_path: Path) -> None:
    scripts = {"good": "", "crash": "at probe crash", "hang": "at probe hang", "bad": "at probe error"}
    for name, script in scripts.items():
        (tmp_path / name).write_text(script)
    probe = SafeProbe(WorkerConfig({}, Path(os.devnull), command=FAKE), limit_s=1.0)
    assert probe(tmp_path / "good", None).width == 10
    with pytest.raises(SlideError, match="SIGSEGV"):
        probe(tmp_path / "crash", None)
    with pytest.raises(SlideError, match="hung"):
        probe(tmp_path / "hang", None)
    with pytest.raises(SlideError, match="unreadable"):
        probe(tmp_path / "bad", None)
    assert probe(tmp_path / "good", None).mpp_x == 0.5
    probe.close()


def test_a_slide_must_be_opened_within_its_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before it would count as hung; scoring may take longer, since reading looks at the limit itself."""
    monkeypatch.setattr("stamp_deploy.batch.workers.supervisor.LIMIT_GRACE_S", 0.5)
    bench = Bench(tmp_path, stall_s=600, options={"time_limit_s": 2.5})
    bench.slide("good", "at score sleep 3.5")
    bench.slide("hangs", "at prepare hang")
    assert bench.run() == {"good": "done", "hangs": "quarantined"}
    reasons = {outcome.reason for outcome in bench.heard if outcome.key == "hangs"}
    assert "no progress for 3 s while preparing" in reasons


def test_dicom_is_parsed_by_the_probe(tmp_path: Path) -> None:
    """A file that crashes or hangs the parser stands alone; the parser is asked once for each state of a file."""
    scripts = {"a-1.dcm": "", "a-2.dcm": "", "b-1.dcm": "at series crash", "b-2.dcm": "at series hang"}
    for name, script in scripts.items():
        (tmp_path / name).write_text(script)
    os.mkfifo(tmp_path / "c.dcm")
    probe = SafeProbe(WorkerConfig({}, Path(os.devnull), command=FAKE), limit_s=1.0)
    found = find_slides(tmp_path, series_of=probe.series)
    assert [path.name for path in found] == ["a-1.dcm", "b-1.dcm", "b-2.dcm", "c.dcm"]
    (tmp_path / "b-2.dcm").unlink()
    probe.close()  # a parser that was needed again would start anew
    assert [path.name for path in find_slides(tmp_path, series_of=probe.series)] == ["a-1.dcm", "b-1.dcm", "c.dcm"]
    assert probe._child is None


def test_errors_keep_their_class_across_the_process_border() -> None:
    error = rebuild_error({"type": "MppError", "cause": "none", "remedy": "give --mpp", "exit_code": 4})
    assert isinstance(error, MppError)
    assert type(rebuild_error({"type": "KeyError", "cause": "x", "remedy": "", "exit_code": 1})) is StampError


def test_two_processes_boards_share_and_neither_loses_the_others_failures(tmp_path: Path) -> None:
    one, two = Bench(tmp_path), Bench(tmp_path)
    two.claims.host = one.claims.host = "one"
    for name in "abcdefgh":
        for bench in (one, two):
            bench.slide(name, "at score error" if name == "d" else "at score sleep 0.05")
    results: dict[str, dict[str, str]] = {}
    other = threading.Thread(target=lambda: results.update(two=two.run()))
    other.start()
    results["one"] = one.run()
    other.join()
    expected = {name: "failed" if name == "d" else "done" for name in "abcdefgh"}
    assert results == {"one": expected, "two": expected}
    assert sum(outcome.state == "done" for outcome in one.heard + two.heard) == 7


def test_failed_slides_are_tried_again_only_on_request(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    first.slide("a", "at score error")
    assert first.run() == {"a": "failed"}
    second = Bench(tmp_path)
    second.slide("a")
    assert second.run() == {"a": "failed"} and second.heard == []
    third = Bench(tmp_path)
    third.board = Board(third.claims, third.ledger, retry_failed=True)
    third.slide("a")
    assert third.run() == {"a": "done"}


def test_deleted_result_is_made_again(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    task = first.slide("a")
    assert first.run() == {"a": "done"}
    (task.out / "DONE").unlink(), (task.out / "result.txt").unlink(), task.out.rmdir()
    second = Bench(tmp_path)
    second.slide("a")
    assert second.run() == {"a": "done"} and is_done(task.out)


def test_leftovers_of_a_killed_worker_are_removed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    leftover = tmp_path / "out" / ".partial-0011aabb-a"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("x")
    bench.slide("a")
    assert bench.run() == {"a": "done"}
    assert not leftover.exists()


def test_machine_is_divided_among_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    setups = worker_setups({}, tmp_path)
    assert [setup.environment for setup in setups] == [
        (("CUDA_VISIBLE_DEVICES", "2"),),
        (("CUDA_VISIBLE_DEVICES", "5"),),
    ]
    assert [setup.cpus for setup in setups] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert [len(setup.cpus) for setup in worker_setups({}, tmp_path, devices="cpu", workers=4)] == [2] * 4
    assert len(worker_setups({}, tmp_path, devices="cpu")) == 1
