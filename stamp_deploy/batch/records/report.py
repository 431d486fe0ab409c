"""batch.json: what became of each slide, and the exit code that follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import __version__
from ...errors import ExitCode
from ..planning.plan import Plan
from .ledger import now_utc

if TYPE_CHECKING:
    from ..run import BatchRun

SCHEMA = "stamp-deploy/batch"
MEASURED = ("tiles", "timing", "limiting", "slide_sha256", "result_sha256", "rss", "rss_peak", "warnings")
"""What a worker says of a finished slide; null for the others."""


def exit_code(done: int, bad: int, *, disk: bool, interrupted: bool, left: int) -> ExitCode:
    """The exit code of a batch (docs/exit-codes.md)."""
    if disk:
        return ExitCode.DISK
    if interrupted:
        return ExitCode.TRY_AGAIN
    if bad:
        return ExitCode.SOME_FAILED if done else ExitCode.NONE_SUCCEEDED
    return ExitCode.TRY_AGAIN if left else ExitCode.OK


def report_name(shard: tuple[int, int]) -> str:
    """batch.json, or batch-shard-I-of-N.json, which N shards can write side by side."""
    return "batch.json" if shard[1] == 1 else f"batch-shard-{shard[0]}-of-{shard[1]}.json"


def make_report(plan: Plan, run: BatchRun, started: str, seconds: float) -> dict[str, Any]:
    """The content of batch.json (described in docs/batch.md)."""
    rows = []
    for slide in plan.slides:
        settled = run.board.settled.get(slide.key) if slide.state == "run" else None
        state = {"run": "left", "bad": "failed"}.get(slide.state, slide.state)
        row: dict[str, Any] = {
            "name": slide.path.name,
            "key": slide.key,
            "case_id": slide.case_id,
            "state": settled.state if settled else state,
            "reason": settled.reason if settled else slide.reason,
            "attempts": settled.attempts if settled else 0,
            "by": settled.by if settled else "plan",
            "seconds": settled.seconds if settled else 0.0,
            "size_bytes": slide.size_bytes,
        }
        summary = settled.summary if settled else {}
        for name in MEASURED:
            row[name] = summary.get(name)
        rows.append(row)
    states = [row["state"] for row in rows]
    counts = {s: states.count(s) for s in ("done", "failed", "quarantined", "duplicate", "left")}
    code = exit_code(
        counts["done"],
        counts["failed"] + counts["quarantined"],
        disk=bool(run.board.disk_error),
        interrupted=run.interrupted,
        left=counts["left"],
    )
    return {
        "schema": SCHEMA,
        "schema_version": 1,
        "software": __version__,
        "bundle": {"name": run.bundle.name, "sha256": run.bundle.sha256},
        "options": run.options.infer.to_dict(),
        "shard": list(run.options.shard),
        "started_utc": started,
        "ended_utc": now_utc(),
        "seconds": seconds,
        "exit_code": int(code),
        "counts": counts,
        "disk_error": run.board.disk_error,
        "findings": plan.to_dict()["findings"],
        "slides": rows,
        "audit_head": run.audit_head,
    }
