"""Is an output folder's audit log whole, and do its results fit it?"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...atomic import is_done
from ...errors import DataError, UsageError
from ...hashing import folder_sha256
from ..states import AttemptState
from .audit import read_audit, verify_audit

_REPORT = re.compile(r"batch(-shard-\d+-of-\d+)?\.json")


@dataclass(frozen=True)
class AuditCheck:
    """What the logs of an output folder say, checked.

    Attributes
    ----------
    logs : dict
        Name of each host's log -> number of its events, all of them in an unbroken chain.
    heads : int
        Last events recorded by batch reports and found in a log.
    events : tuple of dict
        The events of all logs by time.
    results : int
        Finished results whose bytes are those that the log recorded; 0 where they were not looked at.
    """

    logs: dict[str, int]
    heads: int
    events: tuple[dict[str, Any], ...]
    results: int = 0


def check_audit(out: Path, *, results: bool = False) -> AuditCheck:
    """Check every log of an output folder, against the batch reports beside it and, if asked for, the results.

    Raises
    ------
    UsageError
        There is no audit log.
    DataError
        A log was changed or cut short, or a result is not the one that was logged.
    """
    paths = sorted((out / ".stamp").glob("audit-*.jsonl"))
    if not paths:
        raise UsageError("the folder holds no audit log", path=out, remedy="name the -o folder of a batch or watch")
    logs = {path.name: verify_audit(path) for path in paths}
    found = (event for path in paths for event in read_audit(path))
    events = sorted(found, key=lambda event: str(event.get("time_utc", "")))
    hashes = {event["hash"] for event in events}
    reports = [path for path in sorted(out.glob("batch*.json")) if _REPORT.fullmatch(path.name)]
    heads = [_audit_head(path) for path in reports]
    if not hashes.issuperset(heads):
        raise DataError(
            "an audit log was cut short or replaced: the last event that a batch report names is in none", path=out
        )
    return AuditCheck(logs, len(heads), tuple(events), _check_results(out, events) if results else 0)


def _audit_head(report: Path) -> str:
    try:
        return str(json.loads(report.read_text(encoding="utf-8"))["audit_head"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            "the batch report cannot be read: it was changed or damaged",
            path=report,
            remedy="run the batch again, which writes it again",
        ) from error


def _check_results(out: Path, events: list[dict[str, Any]]) -> int:
    logged = {event.get("result_sha256") for event in events if event.get("state") == AttemptState.DONE}
    folders = [path for path in sorted(out.iterdir()) if path.is_dir() and is_done(path)]
    changed = [folder.name for folder in folders if folder_sha256(folder) not in logged]
    if changed:
        raise DataError(
            f"{len(changed)} of {len(folders)} results are not as they were logged: {', '.join(changed[:5])}",
            path=out,
            remedy="remove those folders and run the batch again",
        )
    return len(folders)
