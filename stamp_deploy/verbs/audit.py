"""The verb ``audit``: is an output folder's audit log whole, and do its results fit it?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..command import Command, option
from ..system.names import printable


@click.command(cls=Command, examples=("audit results", "audit results --results"))
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@option("--results", is_flag=True, help="Hash every finished result and compare it with the log.")
@option("--json", "as_json", is_flag=True, group="Output", help="Print the events, one JSON object per line.")
def audit(out: Path, results: bool, as_json: bool) -> None:
    """Check the audit log of OUT, the folder of a batch or watch, and show what it says."""
    from ..batch.records.audit_check import check_audit

    checked = check_audit(out, results=results)
    if as_json:
        for event in checked.events:
            click.echo(json.dumps(event))
        return
    for event in checked.events:
        said = {name: str(value) for name, value in event.items()}
        what = said.get("slide_sha256") or said.get("slide_fingerprint") or said.get("bundle_sha256", "")
        who = f"{said.get('who', '')}@{said.get('host', '')}"
        when, kind, state = said.get("time_utc", "")[:19], said.get("event", ""), said.get("state", "")
        line = printable(f"{when}Z  {who}  {kind} {what[:12]} {state}")
        click.echo(line.rstrip())
    for name, count in checked.logs.items():
        click.echo(f"{name}: {count} events, chain unbroken")
    if checked.heads:
        click.echo(f"{checked.heads} batch reports name a last event, and it is there")
    if results:
        click.echo(f"{checked.results} results are as they were logged")
