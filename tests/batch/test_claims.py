"""Who holds a claim, told from what the kernel, the clock of the file server and the names of hosts say."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stamp_deploy.batch.records import claims as claims_module
from stamp_deploy.batch.records import holder
from stamp_deploy.batch.records.claim_file import create_json_once
from stamp_deploy.batch.records.claims import Claims
from stamp_deploy.batch.records.holder import host_name
from stamp_deploy.batch.states import AttemptState
from stamp_deploy.errors import DiskError


def _held(folder: Path, **change: object) -> Path:
    """A running claim on "k" of this process on this host, changed."""
    claims = Claims(folder, host="here")
    assert claims.take("k") is not None
    path = folder / "k.1"
    record = json.loads(path.read_text())
    claims.release("k", "interrupted")  # type: ignore[arg-type]
    claims.close()
    path.write_text(json.dumps({**record, **change}))
    return path


def test_a_claim_of_a_living_process_of_this_host_holds(tmp_path: Path) -> None:
    _held(tmp_path)
    os.utime(tmp_path / "k.1", (1, 1))  # however long ago it was touched
    claims = Claims(tmp_path, host="here", lease_s=0.01)
    assert claims.take("k") is None
    claims.close()


@pytest.mark.parametrize(("field", "value"), [("pid_started", "1"), ("pid", 2**22 + 1)])
def test_a_number_that_another_process_has_now_is_not_the_holder(tmp_path: Path, field: str, value: object) -> None:
    _held(tmp_path, **{field: value})
    claims = Claims(tmp_path, host="here", lease_s=1e9)
    record = claims.take("k")
    assert record is not None and record.attempt == 2
    claims.close()


def test_a_start_time_is_that_of_the_process_whatever_its_name() -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) b (c', 0, 0, 0); print(1, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    started = holder.process_started(process.pid)
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    assert started == fields[19] and int(started) > 0
    process.communicate("")
    assert holder.process_started(process.pid) == ""


@pytest.mark.parametrize(("age_s", "taken"), [(599, False), (601, True)])
def test_the_age_of_a_claim_is_by_the_clock_of_the_file_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float, taken: bool
) -> None:
    """This host's clock is a day wrong; what counts is the difference of two stamps of one file server."""
    path = _held(tmp_path, host="far")
    claims = Claims(tmp_path, host="here", lease_s=600.0)
    server = (tmp_path / "k.1").stat().st_mtime
    os.utime(path, (server - age_s, server - age_s))
    monkeypatch.setattr(claims_module.time, "time", lambda: server + 86_400.0)
    monkeypatch.setattr(claims, "_server_now", lambda: server)
    assert (claims.take("k") is not None) == taken
    monkeypatch.undo()
    claims.close()


def test_the_server_s_clock_is_asked_by_a_file_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = Claims(tmp_path, host="here")
    monkeypatch.setattr(claims_module.time, "time", lambda: 5.0)
    assert claims._server_now() > 1e9
    assert list(tmp_path.iterdir()) == []
    claims.close()


def test_containers_of_one_host_do_not_judge_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sees its own processes only: a number that is not there says nothing."""
    stat, found = os.stat, SimpleNamespace(st_ino=0)

    def fake(path: object, *arguments: object, **more: object) -> object:
        return found if path == "/proc/self/ns/pid" else stat(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", fake)
    names = {}
    for who, inode in (("outside", holder._FIRST_PID_NAMESPACE), ("one", 4026532001), ("two", 4026532002)):
        found.st_ino = inode
        names[who] = host_name()
    monkeypatch.undo()
    assert len(set(names.values())) == 3
    assert names["outside"] == names["one"].rsplit(".", 1)[0]
    _held(tmp_path, host=names["one"], pid=2**22 + 1)
    claims = Claims(tmp_path, host=names["two"])
    assert claims.take("k") is None  # its age decides, and it is young
    claims.close()


@pytest.mark.parametrize("links", [True, False])
def test_a_name_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:  # exFAT, some object stores

        def refuse(source: Path, target: Path) -> None:
            raise OSError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    assert create_json_once(tmp_path / "a.json", {"first": 1})
    assert not create_json_once(tmp_path / "a.json", {"second": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"first": 1}
    one, two = Claims(tmp_path / "claims", host="one"), Claims(tmp_path / "claims", host="two")
    assert one.take("k") is not None and two.take("k") is None
    record = two.latest("k")
    assert record is not None and (record.host, record.state) == ("one", "running")
    one.close()
    two.close()


def test_a_claim_that_cannot_be_written_is_not_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without links, the name comes before the content: it goes away again with it."""
    fsync, calls = os.fsync, 0

    def refuse(source: Path, target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    def second_fails(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device")
        fsync(handle)

    claims = Claims(tmp_path, host="one")
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(DiskError, match="No space left"):
        claims.take("k")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    claims.close()


def test_claims_that_are_still_held_are_given_back_as_interrupted(tmp_path: Path) -> None:
    """The next run may take them at once, and they count against no slide."""
    claims = Claims(tmp_path, host="here")
    claims.take("a")
    claims.take("b")
    claims.release("b", AttemptState.FAILED, "why")
    claims.close()
    later = Claims(tmp_path, host="there")
    assert [(r.attempt, str(r.state), r.reason) for r in later.history("a")] == [(1, "interrupted", "")]
    assert [(r.attempt, str(r.state), r.reason) for r in later.history("b")] == [(1, "failed", "why")]
    record = later.take("a")
    assert record is not None and record.attempt == 2
    assert later.take("b") is None
    record = later.take("b", retry_final=True)
    assert record is not None and record.attempt == 2
    later.close()


def test_only_crashes_and_hangs_count_against_a_slide(tmp_path: Path) -> None:
    claims = Claims(tmp_path, host="here")
    for number, state in enumerate(("interrupted", "crashed", "failed", "timeout", "quarantined", "done"), start=1):
        record = claims.take("a", retry_final=True)
        assert record is not None and record.attempt == number
        claims.release("a", AttemptState(state))
    assert claims.attempts("a") == 2 and claims.attempts("b") == 0
    claims.close()


@pytest.mark.parametrize(
    "change",
    [{"key": "other"}, {"attempt": 2}, {"pid": 0}, {"pid": -1}, {"pid": "1"}, {"host": ""}, {"pid_started": ""},
     {"token": 3}, {"reason": None}],
)  # fmt: skip
def test_a_claim_that_names_nobody_or_another_slide_holds_nothing(tmp_path: Path, change: dict[str, object]) -> None:
    _held(tmp_path, **change)
    claims = Claims(tmp_path, host="there")
    latest = claims.latest("k")
    assert latest is not None and (str(latest.state), latest.reason) == ("interrupted", "claim file unreadable")
    record = claims.take("k")
    assert record is not None and record.attempt == 2
    claims.close()


def test_a_touch_from_the_future_holds_for_a_lease_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of its host was set back: what counts is how long nothing has touched it while we looked."""
    path, now = _held(tmp_path), [1000.0]
    monkeypatch.setattr(claims_module.time, "monotonic", lambda: now[0])
    claims = Claims(tmp_path, host="there", lease_s=60.0)
    ahead = path.stat().st_mtime + 1e6
    os.utime(path, (ahead, ahead))
    taken = []
    for seconds in (0.0, 59.0):
        now[0] = 1000.0 + seconds
        taken.append(claims.take("k"))
    os.utime(path, (ahead + 1, ahead + 1))  # it lives: the lease begins again
    for seconds in (61.0, 120.0):
        now[0] = 1000.0 + seconds
        taken.append(claims.take("k"))
    assert taken == [None] * 4
    now[0] = 1122.0
    assert claims.take("k") is not None
    claims.close()


@pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="needs Linux's /proc")
def test_a_host_that_was_started_again_has_another_name() -> None:
    """Start times of processes are counted from the boot: after another one they mean nothing."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    assert len(boot) == 8 and host_name().startswith(f"{socket.gethostname()}.{boot}")
