"""The ledger: an SQLite record of what happened to each slide, attempt by attempt.

It is for people, summaries and queries. It is not the lock: two hosts must not write one SQLite file
over NFS, so each host writes its own ``ledger-HOST.sqlite`` and reads the others'; who may work on a
slide is settled by the claim files (claims.py), and whether a slide is done by its result directory.
Within a host several processes may write at once: every change is one BEGIN IMMEDIATE transaction with a
busy timeout, in rollback-journal mode (WAL needs shared memory, which network file systems lack).
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ...atomic import disk_errors
from ...errors import DiskError
from ..states import AttemptState

_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempt (
    key TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    worker TEXT NOT NULL DEFAULT '',
    started_utc TEXT NOT NULL,
    ended_utc TEXT,
    tiles INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (key, attempt)
)
"""


@dataclass(frozen=True)
class Attempt:
    """One attempt on one slide; times are ISO 8601 in UTC."""

    key: str
    attempt: int
    name: str
    state: AttemptState
    reason: str
    worker: str
    started_utc: str
    ended_utc: str | None
    tiles: int
    seconds: float


class DamagedLedger(DiskError):
    """The file is no database, or a damaged one."""


def open_ledger(folder: Path, host: str, *, locks: bool = True) -> tuple[Ledger, str]:
    """This host's ledger, and the name of a damaged one that was moved aside for it, or "".

    Raises
    ------
    DiskError
        Where no ledger can be written.
    """
    try:
        return Ledger(folder, host, locks=locks), ""
    except DamagedLedger as error:
        assert error.path is not None
        aside = error.path.with_name(f"damaged-{uuid.uuid4().hex[:8]}-{error.path.name}")
        with disk_errors(aside):
            os.replace(error.path, aside)
        return Ledger(folder, host, locks=locks), aside.name


def now_utc() -> str:
    """The time now, ISO 8601 in UTC to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Ledger:
    """The ledgers of one output directory: this host's to write, every host's to read.

    Parameters
    ----------
    folder : Path
        Folder that holds the ``ledger-*.sqlite`` files.
    host : str
        Name of this host; decides which file is written.
    locks : bool
        Whether files can be locked; where they cannot, only one process may use this name.

    Raises
    ------
    DamagedLedger
        Where the file is no database, or a damaged one.
    DiskError
        Where it cannot be written.
    """

    def __init__(self, folder: Path, host: str, *, locks: bool = True) -> None:
        self._locks = locks
        self.path = folder / f"ledger-{re.sub(r'[^A-Za-z0-9._-]', '_', host)}.sqlite"
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                _uri(self.path, "rwc", locks), uri=True, timeout=60.0, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=DELETE")
            self._db.execute("PRAGMA synchronous=FULL")
            with self._transaction():
                self._db.execute(_SCHEMA)
            found = self._db.execute("PRAGMA quick_check").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        except (sqlite3.Error, OSError) as error:
            raise _disk_error(self.path, error) from error

    def start(self, key: str, attempt: int, name: str, worker: str = "") -> None:
        """Record that an attempt began."""
        with self._transaction():
            self._db.execute("DELETE FROM attempt WHERE key=? AND attempt=0", (key,))
            self._db.execute(
                "INSERT OR REPLACE INTO attempt (key, attempt, name, state, worker, started_utc)"
                " VALUES (?, ?, ?, 'running', ?, ?)",
                (key, attempt, name, worker, now_utc()),
            )

    def refuse(self, key: str, name: str, reason: str) -> None:
        """Record that a slide was refused when it was planned: attempt 0, gone once there is a first."""
        now = now_utc()
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO attempt (key, attempt, name, state, reason, started_utc, ended_utc)"
                " VALUES (?, 0, ?, ?, ?, ?, ?)",
                (key, name, AttemptState.FAILED, reason, now, now),
            )

    def end(
        self, key: str, attempt: int, state: AttemptState, *, reason: str = "", tiles: int = 0, seconds: float = 0.0
    ) -> None:
        """Record how an attempt ended."""
        if state == AttemptState.RUNNING:
            raise ValueError("an attempt cannot end as running")
        with self._transaction():
            changed = self._db.execute(
                "UPDATE attempt SET state=?, reason=?, ended_utc=?, tiles=?, seconds=? WHERE key=? AND attempt=?",
                (state, reason, now_utc(), tiles, seconds, key, attempt),
            ).rowcount
            if changed != 1:
                raise ValueError(f"attempt {attempt} of {key} was never started")

    def attempts(self, key: str | None = None) -> list[Attempt]:
        """Attempts of one slide, or of all, from every host's ledger, oldest first."""
        rows: list[Attempt] = []
        for path in sorted(self.path.parent.glob("ledger-*.sqlite")):
            rows += _read(path, key, self._locks)
        return sorted(rows, key=lambda row: (row.key, row.attempt))

    def close(self) -> None:
        """Close this host's file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise _disk_error(self.path, error) from error


def _uri(path: Path, mode: str, locks: bool) -> str:
    return f"{path.resolve().as_uri()}?mode={mode}{'' if locks else '&nolock=1'}"


def _read(path: Path, key: str | None, locks: bool) -> list[Attempt]:
    query = "SELECT key, attempt, name, state, reason, worker, started_utc, ended_utc, tiles, seconds FROM attempt"
    try:
        with closing(sqlite3.connect(_uri(path, "ro", locks), uri=True, timeout=10.0)) as db:
            cursor = db.execute(query) if key is None else db.execute(query + " WHERE key=?", (key,))
            return [replace(Attempt(*row), state=AttemptState(row[3])) for row in cursor]
    except sqlite3.Error as error:
        raise _disk_error(path, error) from error


def _disk_error(path: Path, error: Exception) -> DiskError:
    operational = isinstance(error, (sqlite3.OperationalError, OSError))
    kind = DiskError if operational or not isinstance(error, sqlite3.DatabaseError) else DamagedLedger
    locked = "locked" in str(error)
    return kind(
        f"the ledger cannot be used: {error}",
        remedy="another process holds it, or its file system has no locks; wait, or name an output on another disk"
        if locked
        else "check free space and permissions; a damaged ledger can be deleted, results are not affected",
        path=path,
    )
