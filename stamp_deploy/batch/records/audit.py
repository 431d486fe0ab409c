"""An append-only audit log: who ran what on which bytes, as a chain of hashes.

One JSON object per line. Each line carries the SHA-256 of the line before it, so that a changed, removed
or inserted line breaks the chain at that place. Cutting lines off the end leaves a valid shorter chain:
batch.json therefore records the last hash, and ``verify_audit`` takes it. Slides are named by SHA-256 only;
no file name, folder or case id is written. Each host writes its own file (see ledger.py for the reason).
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from ...errors import DataError, DiskError
from .ledger import now_utc

START = "0" * 64
"""What the first line names as the hash of the line before it."""
ALLOWED = frozenset(
    {
        "slide_sha256", "slide_fingerprint", "bundle_sha256", "result_sha256", "config_sha256", "software",
        "engine", "state", "cause", "attempt", "exit_code", "slides", "torn_sha256",
    }
)  # fmt: skip
"""Fields that an event may carry: an allow-list, so that no caller can add a name by accident."""


class AuditLog:
    """This host's audit log in one output directory.

    Parameters
    ----------
    folder : Path
    host : str
        Names the file.
    locks : bool
        Whether the file can be locked; where it cannot, only one process may use this name.

    Attributes
    ----------
    recovered : int
        Times that the log's end was found unreadable.
    """

    def __init__(self, folder: Path, host: str, *, locks: bool = True) -> None:
        self._locks = locks
        self.recovered = 0
        self.path = folder / f"audit-{re.sub(r'[^A-Za-z0-9._-]', '_', host)}.jsonl"
        self.host = host
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _disk_error(self.path, error) from error

    def append(self, event: str, **fields: str | int) -> str:
        """Add one event and return its hash.

        The line is in the file and synced when this returns. Processes of this host take turns by a
        lock on the file. An end that cannot be read (a line torn by a power cut or a kill, or damaged) stays
        where it is and is named, by hash, in a "recovered" event after it.

        Raises
        ------
        ValueError
            For a field that is not on the allow-list.
        DiskError
            When the log cannot be written: the caller must stop, since unaudited work is not allowed.
        """
        unknown = sorted(set(fields) - ALLOWED)
        if unknown:
            raise ValueError(f"audit fields not allowed: {', '.join(unknown)}")
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
            try:
                if self._locks:
                    fcntl.lockf(handle, fcntl.LOCK_EX)
                previous, sequence, torn, ends_open = _tail(handle)
                lines = b""
                if torn:
                    self.recovered += 1
                    sequence += 1
                    lines, previous = self._line(sequence, previous, "recovered", {"torn_sha256": _torn_sha256(torn)})
                    lines = b"\n" * ends_open + lines
                line, digest = self._line(sequence + 1, previous, event, fields)
                _write_all(handle, lines + line)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise _disk_error(self.path, error) from error
        return digest

    def _line(
        self, sequence: int, previous: str, event: str, fields: dict[str, str] | dict[str, str | int]
    ) -> tuple[bytes, str]:
        entry: dict[str, Any] = {
            "seq": sequence,
            "time_utc": now_utc(),
            "who": _user(),
            "host": self.host,
            "pid": os.getpid(),
            "event": event,
            **fields,
            "previous": previous,
        }
        digest = _digest(entry)
        return json.dumps({**entry, "hash": digest}, ensure_ascii=True).encode() + b"\n", digest


def verify_audit(path: Path, *, head: str | None = None) -> int:
    """Check a log's chain and return the number of its events.

    Parameters
    ----------
    path : Path
        The log.
    head : str, optional
        A hash that must be in the chain (batch.json's ``audit_head``): shows that nothing was cut off.

    Raises
    ------
    DataError
        Naming the first line that does not fit.
    """
    previous, count = START, 0
    torn: list[bytes] = []
    hashes = set()
    for number, line in enumerate(_read(path).split(b"\n"), start=1):
        entry = _parse(line)
        if entry is None:
            if line or torn:
                torn.append(line)
            continue
        if torn:
            if entry.get("torn_sha256") != _torn_sha256(b"\n".join(torn)):
                raise DataError(f"audit line {number - len(torn)} is not readable", path=path)
            torn = []
        stated = entry.pop("hash")
        count += 1
        if entry.get("previous") != previous or entry.get("seq") != count or _digest(entry) != stated:
            raise DataError(f"audit line {number} was changed, or a line before it removed", path=path)
        previous = stated
        hashes.add(stated)
    if head is not None and head not in hashes:
        raise DataError("the audit log was cut short: the recorded last event is not in it", path=path)
    return count


def read_audit(path: Path) -> list[dict[str, Any]]:
    """The readable events of a log, in order. Whether they are genuine is for ``verify_audit`` to say."""
    entries = (_parse(line) for line in _read(path).split(b"\n"))
    return [entry for entry in entries if entry is not None]


def _digest(entry: dict[str, Any]) -> str:
    return hashlib.sha256(
        json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    ).hexdigest()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    fits = isinstance(entry, dict) and isinstance(entry.get("hash"), str) and type(entry.get("seq")) is int
    return entry if fits else None


def _tail(handle: int) -> tuple[str, int, bytes, bool]:
    """The last readable event's hash and number, the bytes after it, and whether those lack an end of line."""
    size = os.fstat(handle).st_size
    length = 1 << 16
    while True:
        start = max(0, size - length)
        lines = _pread(handle, start, size).split(b"\n")
        for i in range(len(lines) - 2, -1, -1):  # the last one has no end
            entry = _parse(lines[i])
            if entry is not None:
                return entry["hash"], entry["seq"], b"\n".join(lines[i + 1 :]).strip(b"\n"), lines[-1] != b""
        if start == 0:
            return START, 0, b"\n".join(lines).strip(b"\n"), lines[-1] != b""
        length *= 8


def _pread(handle: int, start: int, end: int) -> bytes:
    blocks = []
    while start < end and (block := os.pread(handle, end - start, start)):
        blocks.append(block)
        start += len(block)
    return b"".join(blocks)


def _torn_sha256(torn: bytes) -> str:
    """What names bytes that cannot be read; ends of lines around them do not count."""
    return hashlib.sha256(torn.strip(b"\n")).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"the audit log cannot be read: {error.strerror}", path=path) from error


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _disk_error(path: Path, error: OSError) -> DiskError:
    return DiskError(f"the audit log cannot be written: {error.strerror}", remedy="free some space", path=path)
