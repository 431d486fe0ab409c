"""The ledger and the claims: states that survive, and one holder a slide."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stamp_deploy.batch.records.claims import Claims
from stamp_deploy.batch.records.ledger import Ledger
from stamp_deploy.batch.states import AttemptState
from stamp_deploy.errors import DiskError


def test_ledger_keeps_every_attempt(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "host")
    ledger.start("k", 1, "a.svs")
    ledger.end("k", 1, "crashed", reason="SIGSEGV")
    ledger.start("k", 2, "a.svs")
    ledger.end("k", 2, "done", tiles=7, seconds=1.5)
    ledger.close()
    rows = Ledger(tmp_path, "host").attempts("k")
    assert [(row.attempt, row.state, row.reason, row.tiles) for row in rows] == [
        (1, "crashed", "SIGSEGV", 0),
        (2, "done", "", 7),
    ]
    assert rows[0].ended_utc is not None


def test_ledger_reads_other_hosts_but_writes_its_own(tmp_path: Path) -> None:
    one, two = Ledger(tmp_path, "one"), Ledger(tmp_path, "two")
    one.start("k", 1, "a.svs")
    two.start("k", 2, "a.svs")
    assert one.path != two.path
    assert [row.attempt for row in one.attempts("k")] == [1, 2]


def test_a_change_takes_its_lock_before_it_reads(tmp_path: Path) -> None:
    """Two processes that read first and write then would each wait for the other, and one would fail."""
    ledger = Ledger(tmp_path, "host")
    with closing(sqlite3.connect(ledger.path, timeout=0, isolation_level=None)) as other:
        with ledger._transaction(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


def test_an_attempt_ends_by_itself_and_others_stay_as_they_are(tmp_path: Path) -> None:
    """Attempts of other slides, and the earlier ones of this slide, keep their words; times are in UTC."""
    before = datetime.now(UTC)
    ledger = Ledger(tmp_path, "host")
    for key, attempt in (("b", 1), ("a", 1), ("a", 2)):
        ledger.start(key, attempt, f"{key}.svs", "worker 3")
    ledger.end("a", 2, AttemptState.FAILED, reason="why", tiles=12, seconds=3.5)
    rows = ledger.attempts()
    assert [(row.key, row.attempt, str(row.state), row.reason, row.tiles, row.seconds) for row in rows] == [
        ("a", 1, "running", "", 0, 0.0), ("a", 2, "failed", "why", 12, 3.5), ("b", 1, "running", "", 0, 0.0),
    ]  # fmt: skip
    assert {(row.name, row.worker) for row in rows} == {("a.svs", "worker 3"), ("b.svs", "worker 3")}
    ended = rows[1].ended_utc
    assert ended is not None and rows[0].ended_utc is None
    for text in (rows[1].started_utc, ended):
        assert text.endswith("+00:00") and abs(datetime.fromisoformat(text) - before).total_seconds() < 3600
    for key, attempt in (("a", 3), ("c", 1)):
        with pytest.raises(ValueError, match="never started"):
            ledger.end(key, attempt, AttemptState.DONE)
    with pytest.raises(ValueError, match="cannot end as running"):
        ledger.end("a", 1, AttemptState.RUNNING)


def test_a_refusal_is_forgotten_with_the_first_attempt_and_nothing_else_is(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "host")
    ledger.refuse("a", "a.svs", "no microns per pixel")
    ledger.refuse("b", "b.svs", "damaged")
    assert [(row.key, row.attempt, str(row.state), row.reason) for row in ledger.attempts()] == [
        ("a", 0, "failed", "no microns per pixel"), ("b", 0, "failed", "damaged"),
    ]  # fmt: skip
    ledger.start("a", 1, "a.svs")
    ledger.end("a", 1, AttemptState.CRASHED)
    ledger.start("a", 2, "a.svs")
    assert [(row.key, row.attempt) for row in ledger.attempts()] == [("a", 1), ("a", 2), ("b", 0)]


def test_what_was_written_outlives_a_power_cut(tmp_path: Path) -> None:
    """Every change is flushed to the disk; WAL would need shared memory, which network disks lack."""
    ledger = Ledger(tmp_path, "host")
    assert ledger._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert ledger._db.execute("PRAGMA journal_mode").fetchone()[0] == "delete"


def test_damaged_ledger_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "ledger-h.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DiskError, match="can be deleted"):
        Ledger(tmp_path, "h")


def test_ledger_is_shared_by_processes_of_one_host(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom stamp_deploy.batch.records.ledger import Ledger\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1]), 'h')\n"
        "for i in range(20):\n"
        "    ledger.start(f'{sys.argv[2]}-{i}', 1, 'x'); ledger.end(f'{sys.argv[2]}-{i}', 1, 'done')\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert [row.state for row in Ledger(tmp_path, "h").attempts()] == ["done"] * 60


def test_second_claim_is_refused_until_the_first_is_released(tmp_path: Path) -> None:
    one, two = Claims(tmp_path, host="one"), Claims(tmp_path, host="two")
    assert one.take("k") is not None
    assert two.take("k") is None
    one.release("k", "crashed", "SIGSEGV")
    assert two.attempts("k") == 1
    record = two.take("k")
    assert record is not None and record.attempt == 2
    two.release("k", "done")
    assert one.take("k") is None
    assert [r.state for r in one.history("k")] == ["crashed", "done"]
    one.close()
    two.close()


def test_claim_of_a_dead_process_on_this_host_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, os\nfrom stamp_deploy.batch.records.claims import Claims\n"
        "assert Claims(pathlib.Path(sys.argv[1])).take('k') is not None\nos._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    claims = Claims(tmp_path)
    latest = claims.latest("k")
    assert latest is not None and latest.state == "running"
    record = claims.take("k")
    assert record is not None and record.attempt == 2
    assert claims.attempts("k") == 0  # nobody saw the slide crash, so it does not count against it
    claims.close()


def test_claim_of_another_host_is_taken_over_after_its_lease(tmp_path: Path) -> None:
    one, two = Claims(tmp_path, host="one", lease_s=1000), Claims(tmp_path, host="two", lease_s=1000)
    assert one.take("k") is not None
    past = time.time() - 2000
    os.utime(tmp_path / "k.1", (past, past))
    assert two.take("k") is not None
    assert one.take("k") is None
    one.close()
    two.close()


def test_heartbeat_keeps_a_claim_alive(tmp_path: Path) -> None:
    one, two = Claims(tmp_path, host="one", lease_s=0.8), Claims(tmp_path, host="two", lease_s=0.8)
    assert one.take("k") is not None
    for _ in range(6):
        time.sleep(0.3)
        assert two.take("k") is None
    one.close()
    two.close()


def test_racing_processes_share_the_slides_without_overlap(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, json, time\nfrom stamp_deploy.batch.records.claims import Claims\n"
        "claims = Claims(pathlib.Path(sys.argv[1]), host=sys.argv[2])\n"
        "while time.time() < float(sys.argv[3]): pass\n"
        "print(json.dumps([k for k in map(str, range(200)) if claims.take(k)]), flush=True)\n"
        "sys.stdin.read()\n"
    )
    start = str(time.time() + 1.0)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), host, start],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for host in ("one", "two", "three")
    ]  # fmt: skip
    won = [json.loads(racer.stdout.readline()) for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate()
    assert sorted((key for keys in won for key in keys), key=int) == [str(i) for i in range(200)]
