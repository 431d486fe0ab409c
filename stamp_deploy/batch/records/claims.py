"""Claims on slides that hold between processes and between hosts, without a lock server.

A claim is a file created with O_EXCL, which is atomic on local disks and on NFS version 3 and newer,
where POSIX locks (and so a shared SQLite file) are not to be trusted. Claims are numbered: attempt n on
a slide is the file ``KEY.n``, and the highest number is the one that counts. Nobody ever deletes or
renames another's claim; a stale claim n is taken over by creating n + 1, which only one of any number of
contenders can do. The holder touches its claim while it works; a claim is stale when its process is gone
(same host) or when it has not been touched for a lease (another host, by the file server's clock).

If a holder that was presumed dead wakes up, it can still finish: the result directory is renamed whole
and is the same bytes whoever wrote it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

from ...atomic import sweep
from ...errors import DiskError
from ..options import LEASE_S
from ..states import AttemptState
from .claim_file import UNREADABLE, ClaimRecord, claim_errors, link_exclusively, parse_claim
from .holder import host_name, process_started

HEARTBEAT_S = 30.0


class Claims:
    """The claims folder of one output directory.

    Parameters
    ----------
    folder : Path
        Where the claim files lie; made if absent.
    lease_s : float
        Seconds without a heartbeat after which another host's claim is stale.
    host : str, optional
        This host's name (tests pretend to be several).
    """

    def __init__(self, folder: Path, *, lease_s: float = LEASE_S, host: str | None = None) -> None:
        self.folder = folder
        self.lease_s = lease_s
        self.host = host or host_name()
        self._held: dict[str, ClaimRecord] = {}
        self._seen: dict[tuple[str, int], tuple[float, float]] = {}  # claims of others: when touched, since when seen
        self._lock = threading.Lock()
        self._stop = threading.Event()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"cannot make the claims folder: {error.strerror}", path=folder) from error
        sweep(folder, ".*")
        self._thread = threading.Thread(target=self._beat, name="claims-heartbeat", daemon=True)
        self._thread.start()

    def latest(self, key: str) -> ClaimRecord | None:
        """The newest attempt on a slide, or None where there was none."""
        history = self.history(key)
        return history[-1] if history else None

    def history(self, key: str) -> list[ClaimRecord]:
        """Every attempt on a slide, oldest first."""
        found: list[ClaimRecord] = []
        number = 1
        while True:
            record = self._read(key, number)
            if record is None:
                return found
            found.append(record)
            number += 1

    def attempts(self, key: str) -> int:
        """Attempts that count against the slide: those that crashed or timed out while being watched."""
        return sum(1 for record in self.history(key) if record.state.counts)

    def take(self, key: str, *, retry_final: bool = False) -> ClaimRecord | None:
        """Claim a slide; None where somebody else holds it or it is finished.

        Raises
        ------
        DiskError
            When the claim file cannot be written.
        """
        latest = self.latest(key)
        if latest is not None:
            if latest.state == AttemptState.RUNNING and not self.is_stale(latest):
                return None
            if latest.state.final and not retry_final:
                return None
        number = 1 if latest is None else latest.attempt + 1
        record = ClaimRecord(
            key, number, uuid.uuid4().hex, self.host, os.getpid(), process_started(os.getpid()), AttemptState.RUNNING
        )
        # The content is complete before the name exists: link(2) fails with EEXIST like O_EXCL does, and
        # unlike O_EXCL followed by write it never shows a reader half a claim.
        if not self._create(record):
            return None
        with self._lock:
            self._held[key] = record
        return record

    def release(self, key: str, state: AttemptState, reason: str = "") -> None:
        """Give a claim back with the state the slide was left in."""
        with self._lock:
            record = self._held.pop(key)
        released = replace(record, state=AttemptState(state), reason=reason)
        self._replace(released)

    def is_stale(self, record: ClaimRecord) -> bool:
        """Whether the holder of a running claim is gone."""
        if record.host == self.host:
            return process_started(record.pid) != record.pid_started
        try:
            touched = self._path(record.key, record.attempt).stat().st_mtime
        except OSError:
            touched = 0.0  # it comes back, or is stale after a lease by our own clock
        # A touch from the future (a clock that was set back) would hold for ever: what counts then is that
        # nothing has touched the claim for a lease while we looked.
        seen, since = self._seen.get((record.key, record.attempt), (None, 0.0))
        if seen != touched:
            since = time.monotonic()
            self._seen[record.key, record.attempt] = touched, since
        if time.monotonic() - since > self.lease_s:
            return True
        return touched > 0 and self._server_now() - touched > self.lease_s

    def close(self) -> None:
        """Stop the heartbeat; claims still held are released as interrupted."""
        self._stop.set()
        self._thread.join()
        for key in list(self._held):
            with contextlib.suppress(DiskError):  # then it is stale: its process is gone
                self.release(key, AttemptState.INTERRUPTED)

    def _beat(self) -> None:
        while not self._stop.wait(min(HEARTBEAT_S, self.lease_s / 4)):
            with self._lock:
                held = list(self._held.values())
            for record in held:
                with contextlib.suppress(OSError):
                    os.utime(self._path(record.key, record.attempt))

    def _server_now(self) -> float:
        """The file server's clock: hosts' clocks differ, the clock that stamps both files does not."""
        probe = self.folder / f".clock-{uuid.uuid4().hex}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            probe.unlink(missing_ok=True)

    def _path(self, key: str, attempt: int) -> Path:
        return self.folder / f"{key}.{attempt}"

    def _read(self, key: str, attempt: int) -> ClaimRecord | None:
        path = self._path(key, attempt)
        try:
            return parse_claim(json.loads(path.read_text(encoding="utf-8")), key, attempt)
        except FileNotFoundError:
            return None
        except (IsADirectoryError, ValueError, TypeError, KeyError, RecursionError):
            # A power cut or a hand left this: the name is taken, so the next attempt has the next number.
            return ClaimRecord(key, attempt, "", "", 0, "", AttemptState.INTERRUPTED, UNREADABLE)
        except OSError as error:
            raise DiskError(
                f"a claim cannot be read: {error.strerror}", path=path, remedy="check the disk and its permissions"
            ) from error

    def _write_aside(self, record: ClaimRecord) -> Path:
        aside = self.folder / f".{record.token}"
        try:
            with open(aside, "w", encoding="utf-8") as file:
                json.dump(record.__dict__, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        return aside

    def _create(self, record: ClaimRecord) -> bool:
        path = self._path(record.key, record.attempt)
        with claim_errors(path):
            aside = self._write_aside(record)
            try:
                return link_exclusively(aside, path)
            finally:
                aside.unlink(missing_ok=True)

    def _replace(self, record: ClaimRecord) -> None:
        path = self._path(record.key, record.attempt)
        with claim_errors(path):
            aside = self._write_aside(record)
            try:
                os.replace(aside, path)
            except OSError:
                aside.unlink(missing_ok=True)
                raise
