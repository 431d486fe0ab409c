"""The audit log shows every change, and carries no names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stamp_deploy.batch.records.audit import START, AuditLog, verify_audit
from stamp_deploy.errors import DataError, DiskError


def _log(folder: Path, events: int = 4) -> tuple[Path, list[str]]:
    log = AuditLog(folder, "host")
    return log.path, [log.append("slide", slide_sha256=f"{i:064x}", state="done") for i in range(events)]


def test_chain_is_valid_and_says_who(tmp_path: Path) -> None:
    path, heads = _log(tmp_path)
    assert verify_audit(path, head=heads[-1]) == 4
    first = json.loads(path.read_text().splitlines()[0])
    assert first["previous"] == START and first["who"] and first["host"] == "host"


@pytest.mark.parametrize("change", ["edit", "remove", "swap", "insert"])
def test_any_change_is_found(tmp_path: Path, change: str) -> None:
    path, _ = _log(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    if change == "edit":
        lines[1] = lines[1].replace('"done"', '"fail"')
    elif change == "remove":
        del lines[1]
    elif change == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        lines.insert(1, lines[0])
    path.write_text("".join(lines))
    with pytest.raises(DataError, match="changed, or a line before it removed"):
        verify_audit(path)


def test_cut_end_is_found_by_the_recorded_head(tmp_path: Path) -> None:
    path, heads = _log(tmp_path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert verify_audit(path) == 3
    with pytest.raises(DataError, match="cut short"):
        verify_audit(path, head=heads[-1])


def test_torn_line_is_kept_and_named(tmp_path: Path) -> None:
    path, _ = _log(tmp_path)
    with path.open("a") as file:
        file.write('{"seq": 5, "event": "sli')
    log = AuditLog(tmp_path, "host")
    head = log.append("run", state="started")
    assert verify_audit(path, head=head) == 6
    assert '"sli\n' in path.read_text()


def test_names_are_not_accepted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slide_name"):
        AuditLog(tmp_path, "h").append("slide", slide_name="Smith_John.svs")


def test_a_log_that_cannot_be_written_stops_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="the audit log cannot be written") as no_folder:
        AuditLog(tmp_path / "file", "h")
    log = AuditLog(tmp_path, "h")
    log.path.mkdir()
    with pytest.raises(DiskError, match="the audit log cannot be written") as no_file:
        log.append("started")
    for error in (no_folder.value, no_file.value):
        assert error.remedy == "free some space" and error.path is not None and error.path.name == "audit-h.jsonl"


@pytest.mark.parametrize("other", [b"a", b"c", b"d", b"e", b"b ", b"", b"b\nb"])
def test_torn_bytes_are_those_that_were_named(tmp_path: Path, other: bytes) -> None:
    """Whether their hash is a larger (of a and e) or a smaller number (of c and d) than that of b."""
    log = AuditLog(tmp_path, "h")
    log.append("started")
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b"b")
    log.append("ended")
    assert verify_audit(log.path) == 3
    after = log.path.read_bytes()[len(whole) + 1 :]
    log.path.write_bytes(whole + other + after)
    if other:
        with pytest.raises(DataError, match="audit line 2 is not readable"):
            verify_audit(log.path)
