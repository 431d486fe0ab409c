"""What became of each series of an archive: small files beside the batch's own records, so that a restart goes on."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..atomic import disk_errors, sweep, write_json_atomic
from ..batch.states import AttemptState
from ..errors import UsageError


@dataclass(frozen=True)
class SeriesRecord:
    """A series that was scored, or failed for good.

    Attributes
    ----------
    instances : int
        How many the archive listed then; a series that has grown is looked at again.
    key : str
        Its result's folder.
    pushed : bool
        Whether the archive has the result.
    """

    instances: int
    key: str
    state: AttemptState
    pushed: bool = False


class SeriesRecords:
    """The records of one output folder, which one watch at a time may use.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    UsageError
        Another watch uses it.
    DiskError
        It cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise UsageError(
                "another watch of an archive works in this output", remedy="stop it, or name another folder with -o"
            ) from error
        except OSError:
            pass  # a file system without locks
        sweep(folder, ".partial-*")

    def close(self) -> None:
        """Let another watch use it."""
        os.close(self._lock)

    def get(self, series: str) -> SeriesRecord | None:
        """The record of a series; a damaged one counts as none."""
        value = self.read(series)
        try:
            return SeriesRecord(
                int(value["instances"]), str(value["key"]), AttemptState(value["state"]), value["pushed"] is True
            )
        except (KeyError, TypeError, ValueError):
            return None

    def put(self, series: str, record: SeriesRecord) -> None:
        """Note what became of a series.

        Raises
        ------
        DiskError
        """
        self.write(series, asdict(record))

    def read(self, name: str) -> dict[str, Any]:
        """Any small record; empty where there is none, or it is damaged."""
        try:
            value = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Keep a small record.

        Raises
        ------
        DiskError
        """
        write_json_atomic(self.folder / f"{name}.json", value)

    def remove(self, name: str) -> None:
        """Forget a small record."""
        with disk_errors(self.folder):
            (self.folder / f"{name}.json").unlink(missing_ok=True)

    def names(self, prefix: str) -> list[str]:
        """Names of the records that begin so."""
        return sorted(path.stem for path in self.folder.glob(f"{prefix}*.json"))
