"""An append-only audit log: who ran what on which bytes, as a chain of hashes.

One JSON object a line. Each line carries the SHA-256 of the line before it, so that a changed, removed
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
    """This host's audit log in one output directory."""

    def __init__(self, folder: Path, host: str) -> None:
        self.path = folder / f"audit-{re.sub(r'[^A-Za-z0-9._-]', '_', host)}.jsonl"
        self.host = host
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _disk_error(self.path, error) from error

    def append(self, event: str, **fields: str | int) -> str:
        """Add one event and return its hash.

        The line is in the file and synced when this returns. Processes of this host take turns by a
        lock on the file. A torn last line (power cut, kill) stays where it is and is named, by hash, in
        a "recovered" event after it.

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
                fcntl.lockf(handle, fcntl.LOCK_EX)
                previous, sequence, torn = _tail(handle)
                lines = b""
                if torn:
                    sequence += 1
                    lines, previous = self._line(
                        sequence, previous, "recovered", {"torn_sha256": hashlib.sha256(torn).hexdigest()}
                    )
                    lines = b"\n" + lines
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
    previous, count, torn = START, 0, b""
    hashes = set()
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        entry = _parse(line)
        if entry is None:
            if torn:
                raise DataError(f"audit line {number} is not readable", path=path)
            torn = line
            continue
        if torn:
            if entry.get("torn_sha256") != hashlib.sha256(torn).hexdigest():
                raise DataError(f"audit line {number - 1} is not readable", path=path)
            torn = b""
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
    entries = (_parse(line) for line in path.read_bytes().split(b"\n"))
    return [entry for entry in entries if entry is not None]


def _digest(entry: dict[str, Any]) -> str:
    return hashlib.sha256(
        json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    ).hexdigest()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "hash" in entry else None


def _tail(handle: int) -> tuple[str, int, bytes]:
    """The last whole event's hash and number, and the torn bytes after it, reading 64 KiB at most."""
    size = os.fstat(handle).st_size
    block = os.pread(handle, 65536, max(0, size - 65536))
    lines = block.split(b"\n")
    torn = lines.pop() if lines else b""
    for line in reversed(lines):
        entry = _parse(line)
        if entry is not None:
            return str(entry["hash"]), int(entry["seq"]), torn
    return START, 0, torn


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
