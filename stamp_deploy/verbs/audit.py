"""The verb ``audit``: is an output folder's audit log whole, and do its results fit it?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..command import Command, option


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
    from ..batch.records.audit import read_audit, verify_audit
    from ..errors import DataError, UsageError

    paths = sorted((out / ".stamp").glob("audit-*.jsonl"))
    if not paths:
        raise UsageError("the folder holds no audit log", path=out, remedy="name the -o folder of a batch or watch")
    logs = {path.name: verify_audit(path) for path in paths}
    events = sorted((event for path in paths for event in read_audit(path)), key=lambda event: event["time_utc"])
    hashes = {event["hash"] for event in events}
    heads = [json.loads(path.read_text(encoding="utf-8"))["audit_head"] for path in sorted(out.glob("batch*.json"))]
    if not hashes.issuperset(heads):
        raise DataError(
            "an audit log was cut short or replaced: the last event that a batch report names is in none", path=out
        )
    return AuditCheck(logs, len(heads), tuple(events), _check_results(out, events) if results else 0)


def _check_results(out: Path, events: list[dict[str, Any]]) -> int:
    from ..atomic import is_done
    from ..batch.workers.steps import folder_sha256
    from ..errors import DataError

    logged = {event["result_sha256"] for event in events if event.get("state") == "done"}
    folders = [path for path in sorted(out.iterdir()) if path.is_dir() and is_done(path)]
    changed = [folder.name for folder in folders if folder_sha256(folder) not in logged]
    if changed:
        raise DataError(
            f"{len(changed)} of {len(folders)} results are not as they were logged: {', '.join(changed[:5])}",
            path=out,
            remedy="remove those folders and run the batch again",
        )
    return len(folders)


@click.command(cls=Command, examples=("audit results", "audit results --results"))
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@option("--results", is_flag=True, help="Hash every finished result and compare it with the log.")
@option("--json", "as_json", is_flag=True, group="Output", help="Print the events, one JSON object a line.")
def audit(out: Path, results: bool, as_json: bool) -> None:
    """Check the audit log of OUT, the folder of a batch or watch, and show what it says."""
    checked = check_audit(out, results=results)
    if as_json:
        for event in checked.events:
            click.echo(json.dumps(event))
        return
    for event in checked.events:
        what = event.get("slide_sha256") or event.get("slide_fingerprint") or event.get("bundle_sha256", "")
        who = f"{event['who']}@{event['host']}"
        line = f"{event['time_utc'][:19]}Z  {who}  {event['event']} {what[:12]} {event.get('state', '')}"
        click.echo(line.rstrip())
    for name, count in checked.logs.items():
        click.echo(f"{name}: {count} events, chain unbroken")
    if checked.heads:
        click.echo(f"{checked.heads} batch reports name a last event, and it is there")
    if results:
        click.echo(f"{checked.results} results are as they were logged")
