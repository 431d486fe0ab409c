"""batch.json: what became of each slide, and the exit code that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ... import __version__
from ...errors import ExitCode
from ..options import BatchOptions
from ..planning.plan import Plan
from ..states import AttemptState, PlanState
from ..workers.tasks import Settled
from .ledger import now_utc

LEFT = "left"
"""The state of a slide without a final word: stopped before it, or held by another process."""
_UNSETTLED = {PlanState.RUN: LEFT, PlanState.BAD: AttemptState.FAILED}
SCHEMA = "stamp-deploy/batch"
MEASURED = ("tiles", "timing", "limiting", "slide_sha256", "result_sha256", "rss", "rss_peak", "warnings", "trust")
"""What a worker says about a finished slide; null for the others."""


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


@dataclass(frozen=True)
class RunFacts:
    """What a report says about the run as a whole; times are ISO 8601 in UTC."""

    bundle_name: str
    bundle_sha256: str
    started_utc: str
    seconds: float
    disk_error: str
    interrupted: bool
    audit_head: str


def make_report(
    plan: Plan, settled_slides: Mapping[str, Settled], options: BatchOptions, facts: RunFacts
) -> dict[str, Any]:
    """The content of batch.json (described in docs/batch.md)."""
    rows = []
    for slide in plan.slides:
        settled = settled_slides.get(slide.key) if slide.state == PlanState.RUN else None
        state = _UNSETTLED.get(slide.state, slide.state)
        row: dict[str, Any] = {
            "name": slide.name,
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
    counted = (AttemptState.DONE, AttemptState.FAILED, AttemptState.QUARANTINED, PlanState.DUPLICATE, LEFT)
    counts = {str(state): states.count(state) for state in counted}
    code = exit_code(
        counts["done"],
        counts["failed"] + counts["quarantined"],
        disk=bool(facts.disk_error),
        interrupted=facts.interrupted,
        left=counts[LEFT],
    )
    return {
        "schema": SCHEMA,
        "schema_version": 1,
        "software": __version__,
        "bundle": {"name": facts.bundle_name, "sha256": facts.bundle_sha256},
        "options": options.infer.to_dict(),
        "shard": list(options.shard),
        "started_utc": facts.started_utc,
        "ended_utc": now_utc(),
        "seconds": facts.seconds,
        "exit_code": int(code),
        "counts": counts,
        "disk_error": facts.disk_error,
        "findings": plan.to_dict()["findings"],
        "slides": rows,
        "audit_head": facts.audit_head,
    }
