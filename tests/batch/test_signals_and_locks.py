"""A terminal that goes away, a file system without locks, ledgers of two hosts, and what the system refuses."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from support.bundle_factory import make_bundle
from support.fault_shim import environment
from support.thread_signals import signal_another_thread
from test_batch import COMMAND, lines, make_slide, run

from stamp_deploy.atomic import is_whole
from stamp_deploy.batch.output import system_errors
from stamp_deploy.batch.records.audit import AuditLog, verify_audit
from stamp_deploy.batch.records.audit_check import check_audit
from stamp_deploy.batch.records.file_locks import locks_work
from stamp_deploy.batch.records.ledger import Ledger
from stamp_deploy.batch.states import AttemptState
from stamp_deploy.errors import DiskError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "batch.md"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    (tmp_path / "slides").mkdir()
    for i in range(3):
        make_slide(tmp_path / "slides" / f"s{i}.tif", i)
    return tmp_path / "slides"


def arguments(slides: Path, bundle: Path, out: Path) -> list[str]:
    options = ("--bundle", bundle, "-o", out, "--engine", "onnxruntime", "--write", "json")
    return [*COMMAND, "batch", str(slides), *map(str, options)]


def test_a_terminal_that_goes_away_stops_the_batch_like_sigterm(tmp_path: Path, bundle: Path, slides: Path) -> None:
    """SIGHUP comes, and nothing can be shown any more."""
    ours, theirs = pty.openpty()
    out = tmp_path / "out"
    process = subprocess.Popen(
        arguments(slides, bundle, out), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    claims = out / ".stamp" / "claims"
    deadline = time.monotonic() + 100
    while not (claims.is_dir() and any(claims.glob("s*.1"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.close(ours)
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait(timeout=100) == 75
    report = json.loads((out / "batch.json").read_text())
    assert report["exit_code"] == 75 and report["counts"]["failed"] == 0
    assert all(json.loads(path.read_text())["state"] != "running" for path in claims.iterdir())


def test_a_job_that_ignores_sighup_goes_on(tmp_path: Path, bundle: Path, slides: Path) -> None:
    """As under nohup."""
    code = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", code, *arguments(slides, bundle, tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "planned"
    os.kill(process.pid, signal.SIGHUP)
    process.communicate(timeout=200)
    assert process.returncode == 0


def test_a_signal_that_another_thread_takes_ends_a_watch_before_its_next_look(
    tmp_path: Path, bundle: Path, slides: Path
) -> None:
    options = ("--bundle", bundle, "-o", tmp_path / "out", "--engine", "onnxruntime", "--poll", 3600)
    with subprocess.Popen([*COMMAND, "watch", str(slides), *map(str, options)], stdout=subprocess.DEVNULL) as process:
        try:
            signal_another_thread(process.pid, signal.SIGTERM)
            assert process.wait(timeout=100) in (0, 130)
        finally:
            process.kill()


def test_a_reader_that_goes_away_stops_nothing(tmp_path: Path, bundle: Path, slides: Path) -> None:
    """As `stamp-deploy batch ... | head -1`."""
    process = subprocess.Popen(arguments(slides, bundle, tmp_path / "out"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=200) == 0
    assert json.loads((tmp_path / "out" / "batch.json").read_text())["counts"]["done"] == 3


def test_a_file_system_without_locks(tmp_path: Path, bundle: Path, slides: Path) -> None:
    out = tmp_path / "out"
    for number in (1, 2):
        if number == 2:
            make_slide(slides / "later.tif", 9)
        done = subprocess.run(
            arguments(slides, bundle, out),
            env=environment(SHIM_BREAK_LOCKS="1"),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert [line["kind"] for line in lines(done) if line["event"] == "finding"] == ["no-locks"]
    assert len(list((out / ".stamp").glob("ledger-*.sqlite"))) == 2  # one a process
    assert sorted(check_audit(out).logs.values()) == [2, 4]
    assert sum(is_whole(path) for path in out.iterdir() if path.is_dir()) == 4


def test_locks_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locks_work(tmp_path)

    def refuse(handle: int, kind: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    assert not locks_work(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DiskError, match="No locks available"):
        AuditLog(tmp_path, "h").append("run")
    log = AuditLog(tmp_path, "h", locks=False)
    assert verify_audit(log.path, head=log.append("run")) == 1


def test_a_ledger_that_another_holds_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger(tmp_path, "h").close()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, **{**more, "timeout": 0.1}))
    with closing(connect(tmp_path / "ledger-h.sqlite")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DiskError, match="database is locked - another process holds it, or its file system has no"):
            Ledger(tmp_path, "h")


def test_the_ledger_query_of_the_docs_answers_over_two_hosts(tmp_path: Path) -> None:
    state = tmp_path / "OUT" / ".stamp"
    one, two = Ledger(state, "one"), Ledger(state, "two")
    for ledger, key, attempt, ended in (
        (one, "a", 1, AttemptState.CRASHED),
        (one, "a", 2, AttemptState.DONE),
        (one, "b", 1, AttemptState.FAILED),
        (two, "c", 1, AttemptState.CRASHED),
        (two, "c", 2, AttemptState.QUARANTINED),
        (two, "d", 1, AttemptState.DONE),
    ):
        ledger.start(key, attempt, f"{key}.svs")
        ledger.end(key, attempt, ended, reason=f"why {key}{attempt}")
    two.refuse("e", "e.svs", "no mpp")
    block = DOCS.read_text(encoding="utf-8").split("    for ledger in ")[1].split("    done\n")[0]
    script = f"for ledger in {block}\ndone\n"
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "sqlite3"  # the command need not be installed: the query is what is tried
    stand_in.write_text(
        f"#!{sys.executable}\nimport sqlite3, sys\n"
        "for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print('|'.join(map(str, row)))\n"
    )
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(done.stdout.splitlines()) == [
        "b.svs|1|failed|why b1",
        "c.svs|2|quarantined|why c2",
        "e.svs|0|failed|no mpp",
    ]


@pytest.mark.parametrize(("name", "shown"), [("/a/b.svs", "b.svs"), (b"/a/\xff.svs", r"\xff.svs"), (None, "out")])
def test_what_the_operating_system_refuses_is_exit_6_and_names_the_file(name: object, shown: str) -> None:
    with pytest.raises(DiskError, match="Stale file handle") as caught, system_errors(Path("out")):
        raise OSError(116, "Stale file handle", name)
    assert str(caught.value).startswith(shown)


@pytest.mark.parametrize("argument", ["o" * 300, "{folder}/loop"])
def test_inputs_that_cannot_be_looked_at_are_stated(tmp_path: Path, bundle: Path, argument: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = run(argument.format(folder=tmp_path), "--bundle", bundle, "-o", tmp_path / "out", writers="json")
    assert done.returncode == 4 and "Traceback" not in done.stderr, done.stderr
