"""Results appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from stamp_deploy import atomic
from stamp_deploy.errors import DiskError, ExitCode, UsageError


def test_a_finished_folder_has_its_files_and_the_marker(tmp_path: Path) -> None:
    final = tmp_path / "result"
    with atomic.staged_directory(final) as staging:
        (staging / "a.txt").write_text("a")
        assert not final.exists()
    assert sorted(p.name for p in final.iterdir()) == [atomic.DONE_MARKER, "a.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic.staged_directory(tmp_path / "result") as staging:
        (staging / "a.txt").write_text("a")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_finished_result_is_replaced_only_on_request(tmp_path: Path) -> None:
    final = tmp_path / "result"
    for text in ("old", "new"):
        with atomic.staged_directory(final, overwrite=text == "new") as staging:
            (staging / "a.txt").write_text(text)
    assert (final / "a.txt").read_text() == "new"
    with pytest.raises(UsageError, match="--overwrite"), atomic.staged_directory(final):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_foreign_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a finished result"):
        atomic.check_output(tmp_path, overwrite=True)


@pytest.mark.parametrize("nth", range(1, 9))
def test_every_failing_flush_or_rename_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Fail the nth call to the operating system: the folder is the old one or the new one, whole."""
    final = tmp_path / "result"
    with atomic.staged_directory(final) as staging:
        (staging / "a.txt").write_text("old")
    calls = 0

    def failing(real):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == nth:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(os, "rename", failing(os.rename))
    try:
        with atomic.staged_directory(final, overwrite=True) as staging:
            (staging / "a.txt").write_text("new")
    except DiskError as error:
        assert error.exit_code == ExitCode.DISK
        assert "No space left" in str(error)
    monkeypatch.undo()
    assert (final / "a.txt").read_text() in ("old", "new")
    assert atomic.is_done(final)
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_text_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    atomic.write_json_atomic(path, {"a": 1})
    atomic.write_json_atomic(path, {"a": 2})
    assert path.read_text() == '{\n  "a": 2\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json_atomic(path, {"a": float("nan")})
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_sweep_removes_old_leftovers_and_spares_young_ones(tmp_path: Path) -> None:
    old, young, other = tmp_path / ".partial-old", tmp_path / ".partial-young", tmp_path / "kept"
    for path in (old, young, other):
        path.write_text("x")
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    atomic.sweep(tmp_path, ".*")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-young", "kept"]


def test_staging_elsewhere_leaves_nothing_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").mkdir()
    seen: list[list[str]] = []
    replace = os.replace

    def spy(source: Path, target: Path) -> None:
        seen.append([path.name for path in tmp_path.iterdir()])
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    atomic.write_json_atomic(tmp_path / "batch.json", {"a": 1}, staging_in=tmp_path / "state")
    assert seen == [["state"]] and json.loads((tmp_path / "batch.json").read_text()) == {"a": 1}
