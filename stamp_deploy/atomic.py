"""Files and folders that appear whole or not at all.

Everything is written beside its final place, flushed to the disk and renamed; a done-marker is the
last file in a finished folder, so that a reader never takes half a result for a result.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import DiskError, StampError, UsageError
from .hashing import hash_lines
from .system import isolation
from .system.names import NAME_MAX_BYTES, cut_name, printable
from .system.quiet import without_quotes

DONE_MARKER = "DONE"
_BARE_MARKER = b"done\n"
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_STAGING = ".partial-"
_TOKEN_BYTES = 4
STALE_S = 3600.0
"""What killed processes left is removed after so long."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2 (linux/fs.h)


def staging_name(name: str) -> str:
    """A name of its own for what is to become `name`; the end of a long one is cut, to fit the file system."""
    stem = f"{_STAGING}{secrets.token_hex(_TOKEN_BYTES)}-"
    return stem + cut_name(name, NAME_MAX_BYTES - len(stem))


def leftovers(final: Path) -> list[Path]:
    """What killed processes left beside `final` while they made it; a living one may still be at work on it."""
    stem = f"{_STAGING}{'?' * 2 * _TOKEN_BYTES}-"  # not "*": another name may end like this one
    return list(final.parent.glob(stem + glob.escape(cut_name(final.name, NAME_MAX_BYTES - len(stem)))))


def fsync_path(path: Path) -> None:
    """Flush one file, or one folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes_atomic(path: Path, data: bytes, *, staging_in: Path | None = None) -> None:
    """Write `data` to `path` so that the old or the new content is there, never a mixture.

    A kill can leave the staging file; it lies in `staging_in`, a folder of the same disk, or beside `path`.

    Raises
    ------
    DiskError
        The disk is full, read-only or not permitted; nothing is left behind.
    """
    staging = (staging_in or path.parent) / staging_name(path.name)
    with disk_errors(path):
        try:
            with staging.open("xb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(staging, path)
            fsync_path(path.parent)
        finally:
            staging.unlink(missing_ok=True)


def write_files_atomic(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files of one folder, which is made where it is missing, so that they appear together.

    None is put in place before all are on the disk; then they take their places in the order of `contents`. A kill can
    leave the staging folder, which a call an hour later removes.

    Raises
    ------
    DiskError
        The disk is full, read-only or not permitted; the files are as they were.
    """
    with disk_errors(folder):
        _make_folder(folder.absolute())
        for old in leftovers(folder / "files"):
            if time.time() - old.stat().st_mtime > STALE_S:  # a young one may be in use
                shutil.rmtree(old, ignore_errors=True)
        staging = folder / staging_name("files")
        staging.mkdir()
        try:
            for name, content in contents.items():
                (staging / name).write_bytes(content)
            _flush_tree(staging)
            for name in contents:
                os.replace(staging / name, folder / name)
            fsync_path(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def write_text_atomic(path: Path, text: str) -> None:
    """`write_bytes_atomic` for UTF-8 text."""
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path: Path, value: Any, *, staging_in: Path | None = None) -> None:
    """`write_bytes_atomic` for a JSON value, indented; NaN is refused."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_bytes_atomic(path, text.encode(), staging_in=staging_in)


def sweep(folder: Path, pattern: str, older_than_s: float = STALE_S) -> None:
    """Remove staging files that killed processes left in `folder`; young ones may be in use."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if path.is_file() and time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()


def is_done(directory: Path) -> bool:
    """Whether `directory` is a finished result."""
    return os.path.isfile(directory / DONE_MARKER)


def why_not_whole(directory: Path) -> str:
    """What is wrong with a result folder whose done-marker is there: "" where nothing is.

    A marker lists files, as `staged_directory` writes it with hashes, and is compared with the files that are there;
    their bytes are for `stamp-deploy verify` to read. One without hashes says `_BARE_MARKER` and nothing else.
    """
    try:
        marker = (directory / DONE_MARKER).read_bytes()
    except OSError as error:
        return f"its {DONE_MARKER} file cannot be read: {error.strerror}"
    if not marker.strip(b"\0 \n"):
        return f"its {DONE_MARKER} file is empty"
    if marker == _BARE_MARKER:
        return ""
    for line in marker.splitlines():
        digest, _, name = line.partition(b"  ")
        if not _DIGEST.fullmatch(digest) or not name:
            return f"its {DONE_MARKER} file has been changed"
        if not os.path.isfile(os.path.join(os.fsencode(directory), name)):
            return f"{printable(os.fsdecode(name))} is missing"
    return ""


def is_whole(directory: Path) -> bool:
    """Whether `directory` is a finished result with all of its files."""
    return is_done(directory) and not why_not_whole(directory)


def check_output(final: Path, *, overwrite: bool) -> None:
    """Refuse early an output folder that would not be replaced or could not be made.

    Raises
    ------
    UsageError
        `final` is a file, holds a finished result and `overwrite` is false, or holds foreign files.
    DiskError
        The folder in which `final` would be made is no folder, or may not be written.
    """
    with disk_errors(final):
        exists = final.exists()
    if not exists:
        above = next((folder for folder in final.absolute().parents if folder.exists()), Path("/"))
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            raise DiskError(
                f"cannot write the output: {above.name or above} "
                + ("may not be written" if above.is_dir() else "is not a folder"),
                path=final,
                remedy="check its permissions, or name another output with -o",
            )
        return
    if not final.is_dir():
        raise UsageError("the output exists and is not a folder", path=final, remedy="name another output with -o")
    if is_done(final):
        if not overwrite:
            raise UsageError(
                "the output folder already holds a finished result",
                path=final,
                remedy="name another output with -o, or replace the result with --overwrite (Python: overwrite=True)",
            )
    elif any(final.iterdir()):
        raise UsageError(
            "the output folder holds files that are not a finished result",
            path=final,
            remedy="name an empty or new folder with -o",
        )


@contextmanager
def staged_directory(
    final: Path, *, overwrite: bool = False, marker: bytes = _BARE_MARKER, hashes: bool = False
) -> Iterator[Path]:
    """Yield a temporary folder beside `final` that becomes `final` when the block succeeds.

    The done-marker is written last; every file is flushed before the rename. With `hashes` the marker holds
    the SHA-256 of every file, as ``sha256sum`` writes it, for ``sha256sum -c DONE`` and `stamp-deploy verify`.
    When the block raises, the temporary folder is removed and `final` is as it was.

    Raises
    ------
    UsageError
        `final` exists and may not be replaced (see `check_output`).
    DiskError
        The disk is full, read-only or not permitted.
    """
    check_output(final, overwrite=overwrite)
    staging = final.parent / staging_name(final.name)
    with disk_errors(final):
        _make_folder(final.parent.absolute())
        staging.mkdir()
        isolation.note(staging=str(staging.absolute()))
        try:
            yield staging
            _flush_tree(staging)
            _write_marker(staging, hash_lines(staging) if hashes else marker)
            isolation.check_stop()
            _swap_in(staging, final)
        except Exception as error:
            # Libraries word a full disk in their own ways (HDF5 by a RuntimeError): ask the disk itself.
            if not isinstance(error, (StampError, OSError)) and _is_full(staging):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            isolation.note(staging=None)


def _is_full(directory: Path) -> bool:
    """Whether the disk refuses 256 KiB more for lack of space or quota."""
    try:
        with (directory / f"{_STAGING}space").open("xb") as handle:
            handle.write(bytes(1 << 18))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def _flush_tree(directory: Path) -> None:
    for root, _, names in os.walk(directory):
        for name in names:
            fsync_path(Path(root, name))
        fsync_path(Path(root))


def _write_marker(directory: Path, marker: bytes) -> None:
    path = directory / DONE_MARKER
    path.write_bytes(marker)
    fsync_path(path)
    fsync_path(directory)


def _swap_in(staging: Path, final: Path) -> None:
    """Rename `staging` to `final`; a folder that is in the way changes places with it, and is removed by the caller.

    Where the file system cannot do that in one step it is moved aside first, then removed.
    """
    if not final.exists():
        os.rename(staging, final)
    elif not _exchange(staging, final):
        aside = final.parent / staging_name(f"old-{final.name}")
        os.rename(final, aside)
        try:
            os.rename(staging, final)
        except OSError:
            os.rename(aside, final)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    fsync_path(final.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system or the file system cannot (NFS, for one)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV):
        return False
    raise OSError(code, os.strerror(code), os.fspath(other))


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each lasting: its name is flushed too."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        fsync_path(new.parent)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an operating-system refusal while writing into a DiskError that names `path`."""
    try:
        yield
    except OSError as error:
        # a library's own words may hold the folder; the number says it all
        cause = os.strerror(error.errno) if error.errno else without_quotes(error)
        raise DiskError(
            f"cannot write the output: {cause}",
            path=path,
            remedy="free space on that disk, check its permissions, or name another output with -o",
        ) from error
