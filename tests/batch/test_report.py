"""batch.json: one row per slide of the plan, counts, and the exit code that follows."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from stamp_deploy.batch.options import BatchOptions
from stamp_deploy.batch.planning.plan import Finding, Plan, PlannedSlide
from stamp_deploy.batch.records.report import MEASURED, RunFacts, exit_code, make_report, report_name
from stamp_deploy.batch.states import AttemptState, FindingKind, PlanState
from stamp_deploy.batch.workers.tasks import Settled

OPTIONS = BatchOptions(Path("bundle"), Path("out"), shard=(1, 4))


def slide(key: str, state: PlanState, reason: str = "") -> PlannedSlide:
    return PlannedSlide(
        Path("folder") / f"{key}.svs", key, "f" + key, 100 + len(key), None, "case-" + key, state, reason
    )


def facts(*, disk_error: str = "", interrupted: bool = False) -> RunFacts:
    return RunFacts("model", "ab" * 32, "2026-01-02T03:04:05.000+00:00", 12.5, disk_error, interrupted, "head")


PLAN = Plan(
    (
        slide("scored", PlanState.RUN),
        slide("crashed", PlanState.RUN),
        slide("failed", PlanState.RUN),
        slide("waiting", PlanState.RUN),
        slide("before", PlanState.DONE, "a finished result is there"),
        slide("twice", PlanState.DUPLICATE, "as scored.svs"),
        slide("broken", PlanState.BAD, "no slide"),
    ),
    (Finding(FindingKind.MISSING_MPP, "broken.svs", "no mpp"),),
    0,
    0,
)
SUMMARY = {"tiles": {"ok": 7}, "trust": "inside", "slide_sha256": "ab"}
SETTLED = {
    "scored": Settled("scored", AttemptState.DONE, "", 2, 3.5, summary={**SUMMARY, "unknown": 1}),
    "crashed": Settled("crashed", AttemptState.QUARANTINED, "it crashed twice", 3, 9.0, by="another"),
    "failed": Settled("failed", AttemptState.FAILED, "corrupt", 2),
    # not of this run's plan: a result of before, and what is no slide, have no word of this run
    "before": Settled("before", AttemptState.FAILED, "must not be told", 5),
    "broken": Settled("broken", AttemptState.DONE),
}


def test_every_slide_has_its_row() -> None:
    report = make_report(PLAN, SETTLED, OPTIONS, facts())
    rows = {row["key"]: row for row in report["slides"]}
    assert [row["key"] for row in report["slides"]] == [s.key for s in PLAN.slides]
    told = {key: (row["state"], row["reason"], row["attempts"], row["by"], row["seconds"]) for key, row in rows.items()}
    assert told == {
        "scored": ("done", "", 2, "this process", 3.5),
        "crashed": ("quarantined", "it crashed twice", 3, "another", 9.0),
        "failed": ("failed", "corrupt", 2, "this process", 0.0),
        "waiting": ("left", "", 0, "plan", 0.0),
        "before": ("done", "a finished result is there", 0, "plan", 0.0),
        "twice": ("duplicate", "as scored.svs", 0, "plan", 0.0),
        "broken": ("failed", "no slide", 0, "plan", 0.0),
    }
    assert all(row["name"] == f"{key}.svs" and row["case_id"] == f"case-{key}" for key, row in rows.items())
    assert rows["scored"]["size_bytes"] == 106
    measured = {name: rows["scored"][name] for name in MEASURED}
    assert measured == {**dict.fromkeys(MEASURED), **SUMMARY} and "unknown" not in rows["scored"]
    assert all(rows["waiting"][name] is None for name in MEASURED)


def test_counts_and_the_facts_of_the_run() -> None:
    report = make_report(PLAN, SETTLED, OPTIONS, facts())
    assert report["counts"] == {"done": 2, "failed": 2, "quarantined": 1, "duplicate": 1, "left": 1}
    assert report["exit_code"] == 3
    assert report["bundle"] == {"name": "model", "sha256": "ab" * 32} and report["shard"] == [1, 4]
    assert [finding["kind"] for finding in report["findings"]] == ["missing-mpp"]
    assert (report["seconds"], report["audit_head"], report["disk_error"]) == (12.5, "head", "")
    assert report["started_utc"] == "2026-01-02T03:04:05.000+00:00" < report["ended_utc"]


@pytest.mark.parametrize(
    ("settled", "run", "code"),
    [
        ({"scored": SETTLED["scored"]}, facts(), 0),
        ({"scored": SETTLED["scored"]}, facts(interrupted=True), 75),
        ({"scored": SETTLED["scored"]}, facts(disk_error="full"), 6),
        ({}, facts(), 75),
        ({"scored": SETTLED["crashed"]}, facts(), 4),
        ({"scored": SETTLED["failed"]}, facts(), 4),
    ],
)
def test_the_exit_code_of_one_slide(settled: dict[str, Settled], run: RunFacts, code: int) -> None:
    plan = Plan((slide("scored", PlanState.RUN),), (), 0, 0)
    assert make_report(plan, settled, OPTIONS, run)["exit_code"] == code


def test_a_full_disk_outranks_a_signal_and_a_signal_what_failed() -> None:
    for done, bad, disk, interrupted, left in product((0, 2), (0, 1), (False, True), (False, True), (0, 3)):
        code = exit_code(done, bad, disk=disk, interrupted=interrupted, left=left)
        if disk:
            assert code == 6
        elif interrupted:
            assert code == 75
        elif bad:
            assert code == (3 if done else 4)
        else:
            assert code == (75 if left else 0)


def test_shards_write_side_by_side() -> None:
    assert report_name((0, 1)) == "batch.json"
    assert report_name((0, 4)) == "batch-shard-0-of-4.json" and report_name((3, 4)) == "batch-shard-3-of-4.json"
