"""A batch's own files, damaged: told, mended where that is safe, never a traceback, never waited for without end."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.bundle_factory import make_bundle
from test_batch import lines, make_slide, result_folders, run
from test_batch_worker import Bench

from stamp_deploy.atomic import is_whole, why_not_whole
from stamp_deploy.batch.records.audit import AuditLog, verify_audit
from stamp_deploy.batch.records.audit_check import check_audit
from stamp_deploy.batch.records.claims import Claims
from stamp_deploy.batch.records.ledger import Ledger, open_ledger
from stamp_deploy.errors import DataError, DiskError
from stamp_deploy.verbs.audit import audit


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two slides, a bundle, and the finished batch of them."""
    folder = tmp_path_factory.mktemp("finished")
    bundle = make_bundle(folder / "bundle")
    (folder / "slides").mkdir()
    for i in range(2):
        make_slide(folder / "slides" / f"s{i}.tif", i)
    assert run(folder / "slides", "--bundle", bundle, "-o", folder / "out").returncode == 0
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished batch."""
    shutil.copytree(finished / "out", tmp_path / "out")
    return tmp_path / "out"


def again(finished: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    done = run(finished / "slides", "--bundle", finished / "bundle", "-o", out, *more)
    assert "Traceback" not in done.stderr
    return done


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line["kind"] for line in lines(done) if line["event"] == "finding"]


@pytest.mark.parametrize("content", ["", "{half", "[]", "\0" * 300, "[" * 5000])
def test_a_damaged_record_of_options_is_made_anew_where_every_run_was_with_them(
    finished: Path, out: Path, content: str
) -> None:
    config = out / ".stamp" / "config.json"
    whole = config.read_text()
    config.write_text(content)
    done = again(finished, out)
    assert done.returncode == 0 and told(done) == ["repaired"], done.stderr
    assert json.loads(config.read_text()) == json.loads(whole)


def test_a_damaged_record_is_not_guessed_where_results_may_be_of_others(finished: Path, out: Path) -> None:
    (out / ".stamp" / "config.json").write_text("{")
    done = again(finished, out, "--exact")
    assert done.returncode == 2 and "is damaged" in done.stderr and "delete config.json" in done.stderr
    assert (out / ".stamp" / "config.json").read_text() == "{"
    for log in (out / ".stamp").glob("audit-*.jsonl"):
        log.unlink()
    assert again(finished, out).returncode == 2


def test_a_folder_in_place_of_the_record_is_said(finished: Path, out: Path) -> None:
    (out / ".stamp" / "config.json").unlink()
    (out / ".stamp" / "config.json").mkdir()
    done = again(finished, out)
    assert done.returncode == 6 and "Is a directory" in done.stderr


@pytest.mark.parametrize(
    "harm", ["tiles.h5 gone", "DONE emptied", "DONE zeroed", "DONE garbage", "DONE gone", "a file"]
)
def test_a_result_that_is_not_whole_is_made_again_and_the_rest_set_aside(finished: Path, out: Path, harm: str) -> None:
    broken, other = result_folders(out)
    kept = other.stat().st_mtime_ns
    if harm == "tiles.h5 gone":
        (broken / "tiles.h5").unlink()
    elif harm == "DONE emptied":
        (broken / "DONE").write_bytes(b"")
    elif harm == "DONE zeroed":
        (broken / "DONE").write_bytes(bytes((broken / "DONE").stat().st_size))
    elif harm == "DONE garbage":
        (broken / "DONE").write_bytes(b"\xff\xfe{")
    elif harm == "DONE gone":
        (broken / "DONE").unlink()
    else:
        shutil.rmtree(broken)
        broken.write_text("not a folder")
    if broken.is_dir():
        (broken / "notes.txt").write_text("mine")
    done = again(finished, out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert told(done) == (["broken-result"] if harm != "a file" else [])
    assert result_folders(out) == [broken, other] and all(map(is_whole, (broken, other)))
    assert other.stat().st_mtime_ns == kept
    (aside,) = (out / ".stamp" / "set-aside").iterdir()
    assert aside.name.startswith(broken.name)
    assert (aside / "notes.txt").read_text() == "mine" if aside.is_dir() else aside.read_text() == "not a folder"


def test_what_is_wrong_with_a_result(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    assert not is_whole(folder)
    (folder / "DONE").write_text("done\n")  # an older marker, without hashes
    assert is_whole(folder)
    (folder / "DONE").write_text(f"{'0' * 64}  sub/a.txt\n")
    assert why_not_whole(folder) == "sub/a.txt is missing"
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").touch()
    assert is_whole(folder)


def _record(**change: object) -> str:
    record: dict[str, object] = {
        "key": "k", "attempt": 1, "token": "t", "host": "far", "pid": 7, "pid_started": "1", "state": "running",
        "reason": "",
    }  # fmt: skip
    return json.dumps({**record, **change})


HARMED_CLAIMS: dict[str, str | bytes | None] = {
    "a folder": None,
    "nothing": "",
    "text": "not JSON",
    "zeros": "\0" * 200,
    "no UTF-8": b"\xff\xfe\x00",
    "a list": "[]",
    "a number": "5",
    "depth": "[" * 100_000,
    "no pid": _record(pid=0),
    "an empty pid": _record(pid=""),
    "a pid of text": _record(pid="7"),
    "a pid that is none": _record(pid=None),
    "no start of the process": _record(pid_started=""),
    "no host": _record(host=""),
    "another slide's": _record(key="other"),
    "another attempt's": _record(attempt="1"),
    "an unknown state": _record(state="asleep"),
    "a state of another kind": _record(state=5),
    "a reason of another kind": _record(state="failed", reason=["x"]),
    "a field too many": _record(more=1),
}


@pytest.mark.parametrize("harm", HARMED_CLAIMS)
def test_a_claim_that_holds_nothing_is_passed_by(tmp_path: Path, harm: str) -> None:
    content = HARMED_CLAIMS[harm]
    if content is None:
        (tmp_path / "k.1").mkdir()
    elif isinstance(content, bytes):
        (tmp_path / "k.1").write_bytes(content)
    else:
        (tmp_path / "k.1").write_text(content)
    claims = Claims(tmp_path)
    record = claims.take("k")
    assert record is not None and record.attempt == 2
    assert claims.attempts("k") == 0
    claims.close()


def test_a_batch_goes_on_over_harmed_claims(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.slide("a")
    (tmp_path / "out" / ".stamp" / "claims" / "a.1").mkdir()
    assert bench.run() == {"a": "done"}


def _damage_end(path: Path, tail: bytes) -> None:
    with path.open("ab") as file:
        file.write(tail)


@pytest.mark.parametrize(
    "tail",
    [b"garbage\n", b"two\nlines\n", b"\0" * 4096, b"\0" * 70_000 + b"\n", b"torn", b"a\n\nb", b'{"hash": 5}\n'],
)
def test_an_audit_log_with_an_unreadable_end_goes_on_and_names_it(tmp_path: Path, tail: bytes) -> None:
    log = AuditLog(tmp_path, "host")
    for i in range(3):
        log.append("slide", state="done", attempt=i)
    _damage_end(log.path, tail)
    again = AuditLog(tmp_path, "host")
    head = again.append("run", state="started")
    assert again.recovered == 1
    assert verify_audit(log.path, head=head) == 5
    assert tail.strip(b"\n") in log.path.read_bytes()
    log.path.write_bytes(log.path.read_bytes().replace(tail.strip(b"\n"), b"hidden"))
    with pytest.raises(DataError, match="not readable"):
        verify_audit(log.path)


def test_an_audit_log_of_garbage_alone_begins_anew_after_it(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, "host")
    log.path.write_bytes(b"\xff" * 200_000)
    head = log.append("run", state="started")
    assert verify_audit(log.path, head=head) == 2


def test_a_line_that_was_damaged_before_the_end_is_found(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, "host")
    for i in range(3):
        log.append("slide", state="done", attempt=i)
    first, second, third = log.path.read_bytes().splitlines(keepends=True)
    for bad in (b"x\n", b"[1]\n", b'{"hash": "a"}\n', b"\xff\n"):
        log.path.write_bytes(first + bad + third)
        with pytest.raises(DataError, match="line 2 is not readable"):
            verify_audit(log.path)
    log.path.write_bytes(first + second.replace(b'"seq": 2', b'"seq": 7') + third)
    with pytest.raises(DataError, match="line 2 was changed"):
        verify_audit(log.path)


def test_batch_tells_of_a_mended_audit_log(finished: Path, out: Path) -> None:
    (log,) = (out / ".stamp").glob("audit-*.jsonl")
    _damage_end(log, b"garbage\n")
    done = again(finished, out)
    assert done.returncode == 0 and told(done) == ["repaired"]
    assert check_audit(out).logs == {log.name: 5}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "\0\0"])
def test_a_damaged_report_is_a_stated_error_of_the_audit(out: Path, content: str) -> None:
    (out / "batch.json").write_text(content)
    with pytest.raises(DataError, match="report cannot be read"):
        CliRunner().invoke(audit, [str(out)], catch_exceptions=False)


def test_other_files_are_no_reports(out: Path) -> None:
    (out / "batch_notes.json").write_text("mine")
    assert CliRunner().invoke(audit, [str(out)], catch_exceptions=False).exit_code == 0


@pytest.mark.parametrize("damage", ["text", "middle"])
def test_a_damaged_ledger_is_moved_aside(finished: Path, out: Path, damage: str) -> None:
    (ledger,) = (out / ".stamp").glob("ledger-*.sqlite")
    whole = ledger.read_bytes()
    ledger.write_bytes(b"not a database" * 100 if damage == "text" else whole[:4096] + b"\xaa" * (len(whole) - 4096))
    done = again(finished, out)
    assert done.returncode == 0 and told(done) == ["repaired"], done.stdout + done.stderr
    (aside,) = (out / ".stamp").glob("damaged-*-ledger-*.sqlite")
    assert aside.read_bytes() != ledger.read_bytes()


def test_a_ledger_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "ledger-h.sqlite").mkdir()
    with pytest.raises(DiskError, match="cannot be used"):
        open_ledger(tmp_path, "h")
    assert [path.name for path in tmp_path.iterdir()] == ["ledger-h.sqlite"]


@pytest.mark.parametrize("name", ["claims", "slides", "stamp.prom"])
def test_what_is_in_the_way_of_the_state_is_said(finished: Path, out: Path, name: str) -> None:
    path = out / ".stamp" / name
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("in the way")
    else:
        path.unlink()
        path.mkdir()
    shutil.rmtree(result_folders(out)[0])
    done = again(finished, out)
    assert done.returncode == 6, done.stdout + done.stderr


def test_slides_refused_by_the_plan_stand_in_the_ledger(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "bad.svs").write_bytes(b"no slide" * 50)
    shutil.copyfile(finished / "slides" / "s0.tif", tmp_path / "slides" / "s0.tif")
    assert run(tmp_path / "slides", "--bundle", finished / "bundle", "-o", tmp_path / "out").returncode == 3
    (path,) = (tmp_path / "out" / ".stamp").glob("ledger-*.sqlite")
    ledger = Ledger(path.parent, path.stem.removeprefix("ledger-"))
    rows: dict[str, Any] = {row.name: (row.attempt, row.state) for row in ledger.attempts()}
    assert rows == {"bad.svs": (0, "failed"), "s0.tif": (1, "done")}
