"""Results appear whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from stamp_deploy import atomic
from stamp_deploy.errors import DiskError, ExitCode, UsageError
from stamp_deploy.system import isolation


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


def test_files_of_a_folder_appear_together_or_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "summary"
    atomic.write_files_atomic(folder, {"one": b"1", "two": b"2"})
    (folder / "of a user").write_text("stays")
    contents = {"one": b"new 1", "two": b"new 2"}

    def full(path: Path) -> None:
        assert [(path / name).read_bytes() for name in contents] == list(contents.values())
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_flush_tree", full)
        with pytest.raises(DiskError):
            atomic.write_files_atomic(folder, contents)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"one": "1", "two": "2", "of a user": "stays"}
    placed: list[str] = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: placed.append(Path(new).name) or real(old, new))
    atomic.write_files_atomic(folder, contents)
    assert placed == ["one", "two"]
    assert sorted(path.name for path in folder.iterdir()) == ["of a user", "one", "two"]
    assert (folder / "two").read_bytes() == b"new 2"


def test_staging_folders_of_killed_writers_are_removed_when_they_are_old(tmp_path: Path) -> None:
    for name, age_s in (("old", 2 * atomic.STALE_S), ("young", 0.0)):
        left = tmp_path / atomic.staging_name("files")
        left.mkdir()
        (left / name).touch()
        os.utime(left, (left.stat().st_mtime - age_s,) * 2)
    atomic.write_files_atomic(tmp_path, {"one": b"1"})
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()].count("young") == 1
    assert not list(tmp_path.rglob("old"))


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


class Recorder:
    """What is asked of the disk, in order: (call, name of the file or folder)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        real = {name: getattr(os, name) for name in ("fsync", "rename", "replace")}

        def fsync(descriptor: int) -> None:
            self.calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
            real["fsync"](descriptor)

        def move(name: str):  # type: ignore[no-untyped-def]
            def call(source: Path, target: Path) -> None:
                self.calls.append((name, Path(target).name))
                real[name](source, target)

            return call

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "rename", move("rename"))
        monkeypatch.setattr(os, "replace", move("replace"))


def test_a_file_is_flushed_before_it_takes_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    recorder = Recorder(monkeypatch)
    atomic.write_bytes_atomic(folder / "x.bin", b"12")
    (first, staging), *rest = recorder.calls
    assert first == "fsync" and staging.startswith(".partial-") and staging.endswith("-x.bin")
    assert rest == [("replace", "x.bin"), ("fsync", "place")]


def test_all_files_are_flushed_then_the_marker_then_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    with atomic.staged_directory(tmp_path / "above" / "result") as staging:
        (staging / "maps").mkdir()
        (staging / "a.txt").write_text("a")
        (staging / "maps" / "b.txt").write_text("b")
        assert not (staging / atomic.DONE_MARKER).exists()
    name = staging.name
    assert recorder.calls[0] == ("fsync", tmp_path.name)  # the folder that had to be made
    before, after = recorder.calls[1 : recorder.calls.index(("fsync", "DONE"))], recorder.calls[-4:]
    assert set(before) == {("fsync", "a.txt"), ("fsync", "b.txt"), ("fsync", "maps"), ("fsync", name)}
    assert after == [("fsync", "DONE"), ("fsync", name), ("rename", "result"), ("fsync", "above")]
    assert (tmp_path / "above" / "result" / atomic.DONE_MARKER).read_bytes() == b"done\n"


def test_the_marker_can_hold_the_hash_of_every_file(tmp_path: Path) -> None:
    final = tmp_path / "result"
    with atomic.staged_directory(final, hashes=True) as staging:
        (staging / "maps").mkdir()
        (staging / "maps" / "b.txt").write_text("b")
        (staging / "a.txt").write_text("a")
    lines = [f"{hashlib.sha256(name[-5:-4].encode()).hexdigest()}  {name}" for name in ("a.txt", "maps/b.txt")]
    assert (final / atomic.DONE_MARKER).read_text() == "\n".join(lines) + "\n"
    assert atomic.is_whole(final)
    with atomic.staged_directory(tmp_path / "own", marker=b"mine\n"):
        pass
    assert (tmp_path / "own" / atomic.DONE_MARKER).read_bytes() == b"mine\n"


@pytest.mark.parametrize(
    ("marker", "cause"),
    [
        (b"done\n", ""),
        (b"", "its DONE file is empty"),
        (b"\0\0\0\n ", "its DONE file is empty"),
        (b"0" * 64 + b"  a.txt\n", ""),
        (b"0" * 64 + b"  a.txt\n" + b"f" * 64 + b"  maps/b.txt\n", "maps/b.txt is missing"),
        (b"0" * 64 + b"  maps\n", "maps is missing"),
        (b"0" * 63 + b"  a.txt\n", "its DONE file has been changed"),
        (b"G" * 64 + b"  a.txt\n", "its DONE file has been changed"),
        (b"0" * 64 + b" a.txt\n", "its DONE file has been changed"),
        (b"0" * 64 + b"  \n", "its DONE file has been changed"),
        (b"done", "its DONE file has been changed"),
    ],
)
def test_what_is_wrong_with_a_result_is_said(tmp_path: Path, marker: bytes, cause: str) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "maps").mkdir()
    (tmp_path / atomic.DONE_MARKER).write_bytes(marker)
    assert atomic.why_not_whole(tmp_path) == cause
    assert atomic.is_whole(tmp_path) == (cause == "") and atomic.is_done(tmp_path)


def test_without_a_marker_nothing_is_done(tmp_path: Path) -> None:
    assert not atomic.is_done(tmp_path) and not atomic.is_whole(tmp_path)
    (tmp_path / atomic.DONE_MARKER).mkdir()
    assert not atomic.is_done(tmp_path) and not atomic.is_whole(tmp_path)
    assert atomic.why_not_whole(tmp_path) == "its DONE file cannot be read: Is a directory"


def test_what_stands_in_the_way_is_refused_by_its_kind(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(UsageError, match="exists and is not a folder"):
        atomic.check_output(file, overwrite=True)
    for below in (file / "result", file / "more" / "result"):
        with pytest.raises(DiskError, match=r"file is not a folder|Not a directory"):
            atomic.check_output(below, overwrite=False)
    empty = tmp_path / "empty"
    empty.mkdir()
    for overwrite in (False, True):
        atomic.check_output(empty, overwrite=overwrite)
        atomic.check_output(tmp_path / "new" / "result", overwrite=overwrite)
    (empty / atomic.DONE_MARKER).write_text("done\n")
    atomic.check_output(empty, overwrite=True)
    with pytest.raises(UsageError, match="already holds a finished result"):
        atomic.check_output(empty, overwrite=False)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_may_not_be_written_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, int]] = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))  # None: no
    with pytest.raises(DiskError, match=f"{tmp_path.name} may not be written"):
        atomic.check_output(tmp_path / "new" / "result", overwrite=False)
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]


def test_leftovers_are_those_of_this_name_alone(tmp_path: Path) -> None:
    long = "n" * 255
    mine = [tmp_path / f".partial-{token}-result" for token in ("00ff00ff", "abcdef01")]
    for path in (*mine, tmp_path / ".partial-00ff00ff-another-result", tmp_path / ".partial-00ff-result"):
        path.mkdir()
    assert sorted(atomic.leftovers(tmp_path / "result")) == mine
    seen = []
    with atomic.staged_directory(tmp_path / long) as staging:
        seen = atomic.leftovers(tmp_path / long)
        assert seen == [staging] and len(os.fsencode(staging.name)) == 255
    assert (tmp_path / long).is_dir() and atomic.leftovers(tmp_path / long) == []


def test_two_stagings_of_one_name_do_not_meet(tmp_path: Path) -> None:
    with atomic.staged_directory(tmp_path / "r") as one, atomic.staged_directory(tmp_path / "s" / ".." / "r") as two:
        assert one.name != two.name
        assert len(one.name) == len(two.name) == len(".partial-") + 8 + len("-r")


def test_where_folders_cannot_change_places_the_old_one_is_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "result"
    with atomic.staged_directory(final) as staging:
        (staging / "a.txt").write_text("old")
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    with atomic.staged_directory(final, overwrite=True) as staging:
        (staging / "a.txt").write_text("new")
    assert (final / "a.txt").read_text() == "new"
    real, moved = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        moved.append(Path(target).name)
        if len(moved) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with (
        pytest.raises(DiskError, match="Input/output error"),
        atomic.staged_directory(final, overwrite=True) as staging,
    ):
        (staging / "a.txt").write_text("newer")
    assert (final / "a.txt").read_text() == "new"
    assert moved[1:] == ["result", "result"] and moved[0].endswith("-old-result")
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EACCES, 0])
def test_exchanging_tells_not_possible_here_from_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As NFS (EINVAL), an old kernel (ENOSYS) or a refusal answer."""
    (tmp_path / "a").mkdir()

    class Library:
        @staticmethod
        def renameat2(*arguments: object) -> int:
            assert arguments == (-100, bytes(tmp_path / "a"), -100, bytes(tmp_path / "b"), 2)
            ctypes.set_errno(code)
            return -1 if code else 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: Library)
    if code == errno.EACCES:
        with pytest.raises(PermissionError):
            atomic._exchange(tmp_path / "a", tmp_path / "b")
    else:
        assert atomic._exchange(tmp_path / "a", tmp_path / "b") == (code == 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: object())
    assert not atomic._exchange(tmp_path / "a", tmp_path / "b")  # a C library without it


@pytest.mark.parametrize(("code", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_library_that_words_a_full_disk_in_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, full: bool
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(DiskError if full else RuntimeError) as told, atomic.staged_directory(tmp_path / "result"):
        monkeypatch.setattr(os, "fsync", refuse)
        raise RuntimeError("unable to flush file's cached information")
    monkeypatch.undo()
    if full:
        assert os.strerror(errno.ENOSPC) in str(told.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="a bug"), atomic.staged_directory(tmp_path / "result"):
        raise RuntimeError("a bug")


def test_nothing_is_published_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(isolation, "check_stop", stop)
    notes: list[dict[str, object]] = []
    monkeypatch.setattr(isolation, "note", lambda **fields: notes.append(fields))
    with pytest.raises(KeyboardInterrupt), atomic.staged_directory(tmp_path / "result") as staging:
        (staging / "a.txt").write_text("a")
    assert list(tmp_path.iterdir()) == []
    assert notes == [{"staging": str(staging)}, {"staging": None}]


def test_folders_that_are_made_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    atomic._make_folder(tmp_path / "a" / "b" / "c")
    assert recorder.calls == [("fsync", tmp_path.name), ("fsync", "a"), ("fsync", "b")]
    atomic._make_folder(tmp_path / "a" / "b" / "c")
    assert len(recorder.calls) == 3


def test_a_refusal_is_told_by_its_number_and_never_by_a_path(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as told, atomic.disk_errors(tmp_path / "x"):
        raise OSError(errno.EROFS, f"words of a library about '{tmp_path}'")
    assert told.value.cause == "cannot write the output: Read-only file system"
    with pytest.raises(DiskError) as told, atomic.disk_errors(tmp_path / "x"):
        raise OSError(f"Can't write to '{tmp_path}/x'")
    assert "Can't write" in told.value.cause and str(tmp_path) not in told.value.cause


def test_sweep_goes_by_age_and_leaves_folders(tmp_path: Path) -> None:
    import time

    now = time.time()
    for name, age in (("old", 3700), ("young", 3500)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / "older").mkdir()
    os.utime(tmp_path / "older", (1, 1))
    atomic.sweep(tmp_path, "*")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["older", "young"]
    atomic.sweep(tmp_path, "young", older_than_s=3400)
    assert [p.name for p in tmp_path.iterdir()] == ["older"]
