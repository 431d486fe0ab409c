"""What the records of a batch say, field by field, and what of it decides over a slide."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stamp_deploy.atomic import staged_directory
from stamp_deploy.batch.records import claims as claims_module
from stamp_deploy.batch.records import file_locks, holder
from stamp_deploy.batch.records.audit import AuditLog, read_audit, verify_audit
from stamp_deploy.batch.records.audit_check import check_audit
from stamp_deploy.batch.records.claim_file import UNREADABLE, create_json_once, parse_claim
from stamp_deploy.batch.records.claims import Claims
from stamp_deploy.batch.records.file_locks import locks_work
from stamp_deploy.batch.records.ledger import Ledger, open_ledger
from stamp_deploy.batch.records.metrics import BatchMetrics
from stamp_deploy.batch.records.slide_states import MOST_STATES, SlideRecord, SlideStates, file_state
from stamp_deploy.batch.states import AttemptState
from stamp_deploy.errors import DataError, DiskError
from stamp_deploy.hashing import folder_sha256


class Clock:
    """Stands in for `time` in the module of claims."""

    def __init__(self, now: float) -> None:
        self.now, self.server = now, now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(1000.0)
    monkeypatch.setattr(claims_module, "time", made)
    monkeypatch.setattr(Claims, "_server_now", lambda self: made.server)
    return made


RUNNING: dict[str, Any] = {
    "key": "k", "attempt": 2, "token": "t", "host": "h", "pid": 7, "pid_started": "9", "state": "running",
    "reason": "",
}  # fmt: skip
"""What a claim file says while the claim is held."""


class TestClaims:
    def other(self, folder: Path, touched: float) -> Path:
        """A running claim of another host, touched at a time of the file server."""
        far = Claims(folder, host="far")
        assert far.take("k") is not None
        far._held.clear()
        far.close()
        os.utime(folder / "k.1", (touched, touched))
        return folder / "k.1"

    @pytest.mark.parametrize("touched", [9e9, 1000.0])
    def test_a_claim_that_nobody_touches_is_stale_after_a_lease_by_our_own_clock(
        self, tmp_path: Path, clock: Clock, touched: float
    ) -> None:
        """A touch from the future would hold for ever; and the file server's clock may stand still."""
        self.other(tmp_path, touched)
        claims = Claims(tmp_path, host="here", lease_s=60.0)
        assert claims.take("k") is None
        clock.now += 60.0
        assert claims.take("k") is None
        clock.now += 0.5
        assert claims.take("k") is not None
        claims.close()

    def test_a_touch_begins_the_lease_anew(self, tmp_path: Path, clock: Clock) -> None:
        path = self.other(tmp_path, 9e9)
        claims = Claims(tmp_path, host="here", lease_s=60.0)
        for later in range(5):
            os.utime(path, (9e9 + later, 9e9 + later))
            assert claims.take("k") is None
            clock.now += 50.0
        clock.now += 11.0
        assert claims.take("k") is not None
        claims.close()

    def test_a_claim_that_cannot_be_looked_at_is_not_stale_at_once(self, tmp_path: Path, clock: Clock) -> None:
        path = self.other(tmp_path, 1000.0)
        claims = Claims(tmp_path, host="here", lease_s=60.0)
        record = claims.latest("k")
        assert record is not None
        path.unlink()
        assert not claims.is_stale(record)
        clock.now += 61.0
        assert claims.is_stale(record)
        claims.close()

    def test_only_what_is_held_is_touched(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        claims = Claims(tmp_path, host="here")
        for key in "abc":
            assert claims.take(key) is not None
            os.utime(tmp_path / f"{key}.1", (5.0, 5.0))
        claims.release("b", AttemptState.CRASHED)
        os.utime(tmp_path / "b.1", (5.0, 5.0))
        waits: list[float] = []

        def one_beat(seconds: float) -> bool:
            waits.append(seconds)
            return len(waits) > 1

        monkeypatch.setattr(
            claims, "_stop", type("Stop", (), {"wait": staticmethod(one_beat), "set": lambda self: None})()
        )
        claims._beat()
        touched = [key for key in "abc" if (tmp_path / f"{key}.1").stat().st_mtime > 5.0]
        assert touched == ["a", "c"]

    @pytest.mark.parametrize(("lease_s", "beat_s"), [(600.0, 30.0), (100.0, 25.0), (10.0, 2.5)])
    def test_a_lease_outlasts_three_beats_that_fail(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lease_s: float, beat_s: float
    ) -> None:
        claims = Claims(tmp_path, lease_s=lease_s)
        waits: list[float] = []
        stop = type("Stop", (), {"wait": staticmethod(lambda s: waits.append(s) or True), "set": lambda self: None})()
        monkeypatch.setattr(claims, "_stop", stop)
        claims._beat()
        assert waits == [beat_s]

    def test_what_is_still_held_at_the_end_is_released_as_interrupted(self, tmp_path: Path) -> None:
        claims = Claims(tmp_path, host="here")
        taken = {key: claims.take(key) for key in "abc"}
        claims.release("b", AttemptState.DONE, "why")
        claims.close()
        again = Claims(tmp_path, host="there")
        found = {key: again.latest(key) for key in "abc"}
        assert {key: record.state for key, record in found.items() if record} == {
            "a": "interrupted", "b": "done", "c": "interrupted",
        }  # fmt: skip
        before, after = taken["b"], found["b"]
        assert before is not None and after == replace(before, state=AttemptState.DONE, reason="why")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.1", "b.1", "c.1"]
        again.close()

    def test_attempts_that_count_are_crashes_and_hangs(self, tmp_path: Path) -> None:
        claims = Claims(tmp_path)
        states = [s for s in AttemptState if s not in (AttemptState.RUNNING, AttemptState.DONE)]
        for state in states:
            assert claims.take("k", retry_final=True) is not None
            claims.release("k", state, f"because {state}")
        assert [r.attempt for r in claims.history("k")] == list(range(1, len(states) + 1))
        assert [r.state for r in claims.history("k")] == states
        assert claims.attempts("k") == 2 and claims.latest("other") is None and claims.attempts("other") == 0
        claims.close()

    @pytest.mark.parametrize("state", list(AttemptState))
    def test_who_may_take_a_slide_again(self, tmp_path: Path, state: AttemptState) -> None:
        claims = Claims(tmp_path)
        assert claims.take("k") is not None
        if state != AttemptState.RUNNING:
            claims.release("k", state)
        free = state in (AttemptState.CRASHED, AttemptState.TIMEOUT, AttemptState.INTERRUPTED)
        second = claims.take("k", retry_final=state == AttemptState.RUNNING)  # a running one is not to be had so
        assert (second is not None) == free
        if state in (AttemptState.DONE, AttemptState.FAILED, AttemptState.QUARANTINED):
            third = claims.take("k", retry_final=True)
            assert third is not None and third.attempt == 2
        claims.close()

    def test_a_claim_that_cannot_be_read_is_a_disk_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        claims = Claims(tmp_path)

        def refuse(self: Path, *given: Any, **more: Any) -> str:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_text", refuse)
        with pytest.raises(DiskError, match="a claim cannot be read: Permission denied"):
            claims.latest("k")
        monkeypatch.undo()
        claims.close()

    def test_the_numbers_go_on_after_a_file_that_says_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "k.1").mkdir()
        (tmp_path / "k.2").write_text("[" * 100_000)
        (tmp_path / "k.3").write_text("7")
        claims = Claims(tmp_path)
        assert [(r.attempt, r.state, r.reason) for r in claims.history("k")] == [
            (n, AttemptState.INTERRUPTED, UNREADABLE) for n in (1, 2, 3)
        ]
        taken = claims.take("k")
        assert taken is not None and taken.attempt == 4
        claims.close()

    def test_what_killed_processes_left_goes_when_it_is_old(self, tmp_path: Path) -> None:
        for name, when in ((".old", 1.0), (".young", None), ("k.1", 1.0)):
            (tmp_path / name).write_text("{}")
            if when is not None:
                os.utime(tmp_path / name, (when, when))
        Claims(tmp_path).close()
        assert sorted(path.name for path in tmp_path.iterdir()) == [".young", "k.1"]

    @pytest.mark.parametrize(
        "change",
        [{"key": "other"}, {"attempt": 1}, {"pid": 0}, {"pid": -7}, {"pid": True}, {"pid": "7"}, {"pid": 7.0},
         {"host": ""}, {"pid_started": ""}, {"host": 5}, {"reason": None}, {"token": 1}, {"state": "asleep"},
         {"more": 1}],
        ids=str,
    )  # fmt: skip
    def test_each_field_of_a_claim_is_checked(self, change: dict[str, Any]) -> None:
        assert parse_claim(RUNNING, "k", 2).pid == 7
        with pytest.raises((ValueError, TypeError)):
            parse_claim({**RUNNING, **change}, "k", 2)

    def test_a_released_claim_need_not_name_a_holder(self) -> None:
        done = {**RUNNING, "state": "done", "pid": 0, "host": "", "pid_started": ""}
        assert parse_claim(done, "k", 2).state == AttemptState.DONE

    def test_a_file_that_is_written_once_leaves_nothing_beside_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert create_json_once(tmp_path / "a.json", {"a": 1})
        assert not create_json_once(tmp_path / "a.json", {"a": 2})
        assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) & 0o444 == 0o444

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            create_json_once(tmp_path / "b.json", {})
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("lock", "works"), [(None, True), (OSError(37, "No locks"), False), (BlockingIOError(), False)]
)
def test_locks_are_tried_on_a_file_that_goes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: Exception | None, works: bool
) -> None:
    asked: list[int] = []

    def lockf(handle: int, how: int) -> None:
        asked.append(how)
        if lock is not None:
            raise lock

    monkeypatch.setattr(file_locks.fcntl, "lockf", lockf)
    assert locks_work(tmp_path) is works
    assert asked == [file_locks.fcntl.LOCK_EX | file_locks.fcntl.LOCK_NB] and list(tmp_path.iterdir()) == []
    assert locks_work(tmp_path / "none") is True


class TestAudit:
    def test_an_event_says_who_did_what_where_and_when(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from stamp_deploy.batch.records import audit

        monkeypatch.setattr(audit, "now_utc", lambda: "2026-01-02T03:04:05.678+00:00")
        monkeypatch.setattr(audit.getpass, "getuser", lambda: "reader")
        log = AuditLog(tmp_path, "ward 7/a")
        assert log.path.name == "audit-ward_7_a.jsonl"
        heads = [log.append("run", state="started"), log.append("slide", slide_sha256="ab", exit_code=3)]
        first, second = read_audit(log.path)
        assert {k: v for k, v in second.items() if k not in ("hash", "previous")} == {
            "seq": 2, "time_utc": "2026-01-02T03:04:05.678+00:00", "who": "reader", "host": "ward 7/a",
            "pid": os.getpid(), "event": "slide", "slide_sha256": "ab", "exit_code": 3,
        }  # fmt: skip
        assert (first["seq"], first["hash"], second["previous"], second["hash"]) == (1, heads[0], heads[0], heads[1])
        assert stat.S_IMODE(log.path.stat().st_mode) & 0o007 == 0  # not for everybody

    @pytest.mark.parametrize("locks", [True, False])
    def test_processes_take_turns_by_a_lock(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool) -> None:
        from stamp_deploy.batch.records import audit

        asked: list[int] = []
        monkeypatch.setattr(audit.fcntl, "lockf", lambda handle, how: asked.append(how))
        AuditLog(tmp_path, "h", locks=locks).append("run", state="started")
        assert asked == ([audit.fcntl.LOCK_EX] if locks else [])

    @pytest.mark.parametrize("length", [100, 70_000, 600_000])
    def test_the_last_event_is_found_however_long_it_is(self, tmp_path: Path, length: int) -> None:
        log = AuditLog(tmp_path, "h")
        log.append("run", state="started")
        log.append("slide", cause="x" * length)
        head = log.append("run", state="ended")
        assert verify_audit(log.path, head=head) == 3 and log.recovered == 0

    @pytest.mark.parametrize("field", ["seq", "time_utc", "who", "host", "pid", "event", "state", "previous"])
    def test_a_change_of_any_field_is_found(self, tmp_path: Path, field: str) -> None:
        log = AuditLog(tmp_path, "h")
        for _ in range(3):
            log.append("slide", state="done")
        lines = [json.loads(line) for line in log.path.read_text().splitlines()]
        lines[1][field] = 99 if isinstance(lines[1][field], int) else lines[1][field][:-1] + "~"
        log.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(DataError, match="line 2 was changed"):
            verify_audit(log.path)

    def test_a_gap_in_the_numbers_is_found_although_the_hashes_fit(self, tmp_path: Path) -> None:
        """A removed line, and the chain of the rest made anew."""
        from stamp_deploy.batch.records import audit

        log = AuditLog(tmp_path, "h")
        for _ in range(3):
            log.append("slide", state="done")
        first, _, third = read_audit(log.path)
        third["previous"] = first["hash"]
        del third["hash"]
        third["hash"] = audit._digest(third)
        log.path.write_text("".join(json.dumps(line) + "\n" for line in (first, third)))
        with pytest.raises(DataError, match="line 2 was changed, or a line before it removed"):
            verify_audit(log.path)

    def test_a_log_without_its_recorded_last_event_was_cut(self, tmp_path: Path) -> None:
        log = AuditLog(tmp_path, "h")
        log.append("run", state="started")
        head = log.append("run", state="ended")
        assert verify_audit(log.path, head=head) == 2
        first = log.path.read_bytes().splitlines(keepends=True)[0]
        log.path.write_bytes(first)
        assert verify_audit(log.path) == 1, "a shorter chain is whole in itself"
        with pytest.raises(DataError, match="the recorded last event is not in it"):
            verify_audit(log.path, head=head)

    def test_a_line_of_another_log_does_not_fit(self, tmp_path: Path) -> None:
        """Whole lines with fitting hashes, from a chain of their own."""
        one, two = AuditLog(tmp_path, "one"), AuditLog(tmp_path, "two")
        for log in (one, two):
            for state in ("started", log.host, "ended"):
                log.append("run", state=state)
        mixed = one.path.read_bytes().splitlines(keepends=True)
        mixed[2] = two.path.read_bytes().splitlines(keepends=True)[2]
        one.path.write_bytes(b"".join(mixed))
        with pytest.raises(DataError, match="line 3 was changed"):
            verify_audit(one.path)

    def folder(self, out: Path, *results: str) -> list[AuditLog]:
        """An output folder with two hosts' logs, finished results, and batch reports that name the last events."""
        logs = [AuditLog(out / ".stamp", host) for host in ("b", "a")]
        for i, name in enumerate(results):
            with staged_directory(out / name) as staging:
                (staging / "scores.txt").write_text(name)
            logs[i % 2].append("slide", state="done", result_sha256=folder_sha256(out / name))
        for i, log in enumerate(logs):
            head = log.append("run", state="ended")
            (out / f"batch-shard-{i}-of-2.json").write_text(json.dumps({"audit_head": head}))
        return logs

    def test_logs_of_all_hosts_are_checked_against_reports_and_results(self, tmp_path: Path) -> None:
        self.folder(tmp_path, "r1", "r2", "r3")
        found = check_audit(tmp_path, results=True)
        assert found.logs == {"audit-a.jsonl": 2, "audit-b.jsonl": 3}
        assert (found.heads, found.results, len(found.events)) == (2, 3, 5)
        assert [e["time_utc"] for e in found.events] == sorted(e["time_utc"] for e in found.events)
        assert check_audit(tmp_path).results == 0
        (tmp_path / "unfinished").mkdir()
        (tmp_path / "unfinished" / "x").write_text("x")
        assert check_audit(tmp_path, results=True).results == 3

    def test_a_result_that_is_not_as_it_was_logged(self, tmp_path: Path) -> None:
        self.folder(tmp_path, "r1", "r2")
        (tmp_path / "r2" / "scores.txt").write_text("other")
        check_audit(tmp_path)
        with pytest.raises(DataError, match="1 of 2 results are not as they were logged: r2"):
            check_audit(tmp_path, results=True)

    def test_a_result_that_was_only_tried_is_not_logged_as_done(self, tmp_path: Path) -> None:
        (log, _) = self.folder(tmp_path, "r1")
        with staged_directory(tmp_path / "r2") as staging:
            (staging / "scores.txt").write_text("r2")
        log.append("slide", state="failed", result_sha256=folder_sha256(tmp_path / "r2"))
        with pytest.raises(DataError, match="logged: r2"):
            check_audit(tmp_path, results=True)

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_log_that_was_cut_is_found_by_any_report(self, tmp_path: Path, which: int) -> None:
        log = self.folder(tmp_path, "r1", "r2")[which]
        log.path.write_bytes(b"".join(log.path.read_bytes().splitlines(keepends=True)[:-1]))
        with pytest.raises(DataError, match="cut short or replaced"):
            check_audit(tmp_path)


class TestLedger:
    def rows(self, ledger: Ledger) -> list[tuple[Any, ...]]:
        with sqlite3.connect(ledger.path) as db:
            return list(db.execute("SELECT * FROM attempt ORDER BY key, attempt"))

    def test_each_field_comes_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from stamp_deploy.batch.records import ledger as module

        times = iter(["t1", "t2", "t3", "t4"])
        monkeypatch.setattr(module, "now_utc", lambda: next(times))
        ledger = Ledger(tmp_path, "h")
        ledger.start("k", 1, "a.svs", "gpu 1")
        ledger.end("k", 1, AttemptState.DONE, reason="r", tiles=7, seconds=1.5)
        ledger.start("other", 1, "b.svs", "gpu 0")
        found = ledger.attempts("k")
        assert [tuple(vars(row).values()) for row in found] == [
            ("k", 1, "a.svs", AttemptState.DONE, "r", "gpu 1", "t1", "t2", 7, 1.5)
        ]
        assert [(row.key, row.state, row.ended_utc) for row in ledger.attempts("other")] == [("other", "running", None)]
        assert len(ledger.attempts()) == 2
        ledger.close()

    def test_the_end_of_one_attempt_is_of_no_other(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path, "h")
        for key, attempt in (("a", 1), ("a", 2), ("b", 1)):
            ledger.start(key, attempt, "x")
        ledger.end("a", 2, AttemptState.CRASHED)
        assert [(r.key, r.attempt, r.state) for r in ledger.attempts()] == [
            ("a", 1, "running"), ("a", 2, "crashed"), ("b", 1, "running"),
        ]  # fmt: skip
        for wrong in (("a", 3), ("c", 1)):
            with pytest.raises(ValueError, match="never started"):
                ledger.end(*wrong, AttemptState.DONE)
        with pytest.raises(ValueError, match="cannot end as running"):
            ledger.end("a", 1, AttemptState.RUNNING)
        ledger.end("a", 1, AttemptState.DONE)  # a change that failed leaves the file to be used
        ledger.close()

    def test_a_refused_slide_stands_there_until_its_first_attempt(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path, "h")
        ledger.refuse("k", "a.svs", "no mpp")
        ledger.refuse("k", "a.svs", "still no mpp")
        ledger.refuse("other", "b.svs", "no mpp")
        (row, _) = ledger.attempts()
        assert (row.attempt, row.state, row.reason, row.name) == (0, "failed", "still no mpp", "a.svs")
        assert row.ended_utc == row.started_utc
        ledger.start("k", 1, "a.svs")
        assert [(r.key, r.attempt) for r in ledger.attempts()] == [("k", 1), ("other", 0)]
        ledger.close()

    def test_all_hosts_rows_come_in_the_order_of_slides_and_attempts(self, tmp_path: Path) -> None:
        for host, rows in (("b", [("k", 1), ("a", 2)]), ("a", [("k", 10), ("k", 2), ("a", 1)])):
            ledger = Ledger(tmp_path, host)
            for key, attempt in rows:
                ledger.start(key, attempt, "x")
            ledger.close()
        found = Ledger(tmp_path, "c").attempts()
        assert [(r.key, r.attempt) for r in found] == [("a", 1), ("a", 2), ("k", 1), ("k", 2), ("k", 10)]

    def test_what_is_written_is_on_the_disk_and_works_on_network_file_systems(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path, "h")
        assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
        ledger.close()

    def test_a_transaction_that_fails_is_undone(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path, "h")
        ledger.start("k", 1, "x")
        with pytest.raises(RuntimeError), ledger._transaction():
            ledger._db.execute("DELETE FROM attempt")
            raise RuntimeError
        with pytest.raises(DiskError), ledger._transaction():
            ledger._db.execute("DELETE FROM attempt")
            ledger._db.execute("no such words")
        assert len(self.rows(ledger)) == 1
        ledger.start("k", 2, "x")
        assert len(self.rows(ledger)) == 2
        ledger.close()

    def test_a_whole_ledger_stays_and_a_damaged_one_is_kept_beside(self, tmp_path: Path) -> None:
        ledger, aside = open_ledger(tmp_path, "h")
        assert aside == ""
        ledger.start("k", 1, "x")
        ledger.close()
        again, aside = open_ledger(tmp_path, "h")
        assert aside == "" and len(again.attempts()) == 1
        again.close()
        damaged = b"SQLite format 3\0" + b"\xaa" * 8000
        again.path.write_bytes(damaged)
        fresh, aside = open_ledger(tmp_path, "h")
        assert fresh.attempts() == [] and (tmp_path / aside).read_bytes() == damaged
        fresh.close()

    def test_a_ledger_with_one_damaged_page_is_kept_beside(self, tmp_path: Path) -> None:
        """Some of them SQLite opens, and reads rows of; only its own check tells."""
        ledger, _ = open_ledger(tmp_path, "h")
        for number in range(40):
            ledger.start(f"k{number}", 1, "x" * 50)
        ledger.close()
        whole, size = ledger.path.read_bytes(), 4096
        for page in range(1, len(whole) // size):
            damaged = whole[: page * size] + b"\xaa" * size + whole[(page + 1) * size :]
            ledger.path.write_bytes(damaged)
            fresh, aside = open_ledger(tmp_path, "h")
            assert aside and (tmp_path / aside).read_bytes() == damaged, page
            assert fresh.attempts() == []
            fresh.close()
        assert len(whole) > 3 * size


class TestSlideStates:
    def test_a_state_is_of_size_time_and_inode_of_each_file(self, tmp_path: Path) -> None:
        paths = [tmp_path / "a", tmp_path / "b"]
        for path in paths:
            path.write_bytes(b"x")
        before = file_state(paths)
        assert len(before) == 24 and file_state(reversed(paths)) == before and file_state(paths[:1]) != before
        assert file_state([*paths, tmp_path / "none"]) == ""
        seen = {before}
        os.utime(paths[1], ns=(5, 5))
        seen.add(file_state(paths))
        paths[1].write_bytes(b"xy")
        os.utime(paths[1], ns=(5, 5))
        seen.add(file_state(paths))
        os.rename(paths[1], tmp_path / "c")
        seen.add(file_state([paths[0], tmp_path / "c"]))
        assert len(seen) == 4

    @pytest.mark.parametrize("field", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"])
    def test_each_number_alone_changes_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"x")
        names = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
        facts = {name: getattr(path.stat(), name) for name in names}
        before = file_state([path])
        other = type("Stat", (), {**facts, field: facts[field] + 1})
        monkeypatch.setattr(Path, "stat", lambda self, **more: other)
        assert file_state([path]) != before

    def test_states_of_the_same_bytes_are_kept_newest_last(self, tmp_path: Path) -> None:
        states = SlideStates(tmp_path / "slides")
        assert states.get("k") is None
        for i in range(MOST_STATES + 2):
            states.put("k", "aa", f"s{i}")
        states.put("k", "aa", "s3")
        kept = ("s2", "s4", "s5", "s6", "s7", "s8", "s9", "s3")
        assert states.get("k") == SlideRecord("aa", kept)
        states.put("k", "bb", "s9")
        assert states.get("k") == SlideRecord("bb", ("s9",))
        states.put("other", "cc", "s1")
        assert states.get("k") == SlideRecord("bb", ("s9",))

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"sha256": 1, "states": []}', '{"sha256": "a", "states": [1]}'])
    def test_a_damaged_record_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "k.json").write_text(text)
        assert SlideStates(tmp_path).get("k") is None


def test_counters_count_what_they_are_named_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stamp_deploy.batch.records import metrics as module

    monkeypatch.setattr(module.time, "time", lambda: 1234.0)
    metrics = BatchMetrics(tmp_path / "stamp.prom", version="1", bundle_sha256="ab")
    metrics.slide_ended(AttemptState.FAILED, 50.0)
    sample = metrics.registry.get_sample_value
    assert sample("stamp_slide_seconds_count") == 0 and sample("stamp_last_success_timestamp_seconds") == 0
    metrics.slide_ended(AttemptState.DONE, 20.0)
    assert (sample("stamp_slide_seconds_count"), sample("stamp_slide_seconds_sum")) == (1, 20.0)
    assert sample("stamp_last_success_timestamp_seconds") == 1234.0
    states = {s: sample("stamp_slides_total", {"state": s}) for s in ("done", "failed", "quarantined")}
    assert states == {"done": 1, "failed": 1, "quarantined": 0}
    metrics.stage_seconds({"read": 2.0, "engine": -0.5})
    metrics.stage_seconds({"read": 1.0})
    assert [sample("stamp_stage_seconds_total", {"stage": s}) for s in ("read", "engine")] == [3.0, 0.0]
    metrics.queue(3, 2)
    assert (sample("stamp_slides_waiting"), sample("stamp_slides_running")) == (3, 2)


def test_a_host_that_was_started_again_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process number and a start time can be the same after a start of the machine."""
    names = []
    for boot in ("11111111-aa", "22222222-aa"):
        monkeypatch.setattr(Path, "read_text", lambda self, *given, boot=boot, **more: boot)
        names.append(holder.host_name())
    assert names[0] != names[1] and ".11111111" in names[0]


@pytest.mark.parametrize(
    ("inode", "container"), [(0xEFFFFFFC, ""), (0xEFFFFFFD, ".effffffd"), (0xF0000020, ".f0000020")]
)
def test_a_container_is_told_by_the_number_of_its_namespace(
    monkeypatch: pytest.MonkeyPatch, inode: int, container: str
) -> None:
    """The first one's is fixed in the kernel (PROC_PID_INIT_INO)."""
    monkeypatch.setattr(holder, "os", SimpleNamespace(stat=lambda path: SimpleNamespace(st_ino=inode)))
    monkeypatch.setattr(holder, "socket", SimpleNamespace(gethostname=lambda: "scanner-7"))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    assert holder.host_name() == f"scanner-7.{boot}{container}"
