"""A folder of slides: plan, share out, run, and say what became of each.

    inputs -> plan -> board (claims, ledger) -> executor (worker processes) -> results, batch.json

Results lie in ``OUT/KEY/``; everything the batch itself needs lies in ``OUT/.stamp/``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import __version__
from ..atomic import write_json_atomic
from ..bundle import Bundle, load_bundle
from ..errors import DiskError, ExitCode
from ..writers import check_names
from .look import SLIDE_STATES, make_plan
from .options import BatchOptions
from .output import open_output, system_errors
from .planning.plan import Finding, PlannedSlide
from .progress import Unfailing, View
from .records.audit import AuditLog
from .records.claims import Claims
from .records.file_locks import locks_work
from .records.ledger import now_utc, open_ledger
from .records.metrics import BatchMetrics
from .records.report import RunFacts, exit_code, make_report, report_name
from .records.slide_states import SlideStates
from .states import AttemptState, FindingKind, OutcomeState, PlanState
from .summary import load_ahead, summarise
from .work_queue import Board
from .workers.local import LocalExecutor, worker_setups
from .workers.tasks import Executor, Outcome, Settled, Task

_OWN_RECORDS = "this process keeps a ledger and an audit log of its own"
_RECOVERED = 'it is kept, and named in a "recovered" event'
ExecutorFactory = Callable[[BatchOptions], Executor]


def local_executor(options: BatchOptions) -> Executor:
    """Worker processes on this machine."""
    return LocalExecutor(
        worker_setups(
            options.worker_config(),
            options.state,
            devices=options.devices,
            workers=options.workers,
            stall_s=options.stall_s,
        )
    )


class BatchRun:
    """One process's part in a batch: connects board, executor, view, metrics and audit log."""

    def __init__(
        self,
        options: BatchOptions,
        bundle: Bundle,
        view: View,
        executor: Executor,
        *,
        on_settled: Callable[[PlannedSlide, AttemptState], None] = lambda slide, state: None,
    ) -> None:
        self._on_settled = on_settled
        self.options = options
        self.bundle = bundle
        self.view = view
        self.executor = executor
        self.claims = Claims(options.state / "claims", lease_s=options.lease_s)
        locks = locks_work(options.state)
        writer = self.claims.host if locks else f"{self.claims.host}.{os.getpid()}"
        self.ledger, damaged = open_ledger(options.state, writer, locks=locks)
        self.audit = AuditLog(options.state, writer, locks=locks)
        self.states = SlideStates(options.state / SLIDE_STATES)
        self.metrics = BatchMetrics(
            options.metrics or options.state / "stamp.prom", version=__version__, bundle_sha256=bundle.sha256
        )
        self.board = Board(
            self.claims,
            self.ledger,
            wait_for_others=options.wait_for_others,
            retry_failed=options.retry_failed,
            on_settled=self._settled,
        )
        self.slides: dict[str, PlannedSlide] = {}
        self.interrupted = False
        self.audit_head = self.audit.append(
            "run", bundle_sha256=bundle.sha256, config_sha256=options.infer.sha256(), software=__version__
        )
        if not locks:
            view.tell(Finding(FindingKind.NO_LOCKS, "", "files in the output folder cannot be locked: " + _OWN_RECORDS))
        if damaged:
            view.tell(Finding(FindingKind.REPAIRED, "", f"the ledger was damaged; a new one is begun beside {damaged}"))
        if self.audit.recovered:
            view.tell(Finding(FindingKind.REPAIRED, "", "the audit log's end could not be read; " + _RECOVERED))

    def add(self, slide: PlannedSlide, *, priority: int = 0) -> None:
        """Put a planned slide on the board."""
        self.slides[slide.key] = slide
        out = self.options.out.absolute() / slide.key
        self.board.add(Task(slide.key, slide.path.absolute(), out, slide.mpp, priority=priority, again=slide.again))

    def work(self) -> None:
        """Run until the board is empty (and not held open), the disk is full, or ``stop`` is called."""
        self.executor.run(self.board, self)

    def stop(self) -> None:
        """Abandon the work; claims are released, and a later run resumes."""
        self.interrupted = True
        self.board.stop()
        self.executor.stop()

    def close(self) -> None:
        """Release what is held and write the metrics a last time."""
        self.claims.close()
        self.ledger.close()
        self.write_metrics()

    def write_metrics(self) -> None:
        """Replace the metrics file: it says that this process lives, and what waits."""
        self.metrics.queue(*self.board.counts())
        self.metrics.write()

    # What the executor tells us (tasks.Listener).

    def outcome(self, outcome: Outcome) -> None:
        self.board.outcome(outcome)
        if outcome.state == OutcomeState.DISK:
            self.executor.stop()
        self.metrics.queue(*self.board.counts())

    def progress(self, key: str, done: int, total: int) -> None:
        self.view.progress(key, done, total)

    def restarted(self, cause: str) -> None:
        self.metrics.worker_restarted(cause)

    def _settled(self, settled: Settled) -> None:
        slide = self.slides[settled.key]
        if settled.by == "this process":
            self.states.put(slide.key, settled.summary.get("slide_sha256", ""), slide.file_state)
            self.audit_head = self.audit.append(
                "slide",
                slide_fingerprint=slide.fingerprint,
                slide_sha256=settled.summary.get("slide_sha256", ""),
                bundle_sha256=self.bundle.sha256,
                result_sha256=settled.summary.get("result_sha256", ""),
                state=settled.state,
                attempt=settled.attempts,
            )
            self.metrics.slide_ended(settled.state, settled.seconds)
            tiles = settled.summary.get("tiles", {})
            self.metrics.tiles_seen(
                {k: tiles[k] for k in ("ok", "missing", "corrupt", "timeout", "background") if k in tiles}
            )
            self.metrics.stage_seconds(settled.summary.get("timing", {}))
            if settled.summary.get("trust"):
                self.metrics.slide_judged(settled.summary["trust"])
            self.write_metrics()
        self.view.settled(settled, slide.path)
        self._on_settled(slide, settled.state)


def run_batch(
    inputs: Sequence[Path],
    options: BatchOptions,
    view: View,
    *,
    dry_run: bool = False,
    executor: ExecutorFactory = local_executor,
    on_start: Callable[[BatchRun], None] | None = None,
) -> ExitCode:
    """Run a batch from inputs to batch.json.

    Parameters
    ----------
    inputs : sequence of Path
        Files, folders, globs, CSV manifests.
    options : BatchOptions
        How.
    view : View
        Shows the course of it.
    dry_run : bool
        Stop after the plan: nothing is written.
    executor : callable
        Makes the executor.
    on_start : callable, optional
        Given the run before it works (to install signal handlers).

    Returns
    -------
    ExitCode
        0, 3, 4, 6 or 75.

    Raises
    ------
    StampError
        For a bad bundle, an engine that cannot be used, inputs that cannot be understood.
    """
    view = Unfailing(view)
    try:
        with system_errors(options.out):
            return _run_batch(inputs, options, view, dry_run, executor, on_start)
    finally:
        view.close()


def _run_batch(
    inputs: Sequence[Path],
    options: BatchOptions,
    view: View,
    dry_run: bool,
    executor: ExecutorFactory,
    on_start: Callable[[BatchRun], None] | None,
) -> ExitCode:
    clock, started = time.monotonic(), now_utc()
    check_names(options.infer.writers)
    bundle = load_bundle(options.bundle, require_signature=options.require_signature, adapter=options.infer.adapter)
    if not dry_run:
        open_output(options, bundle, view.tell)
    plan = make_plan(inputs, options, bundle, view)
    view.planned(plan)
    fatal = [finding for finding in plan.findings if finding.fatal]
    if fatal and not options.ignore_space:
        raise DiskError(fatal[0].detail, remedy="free space, name another -o, or use --ignore-space")
    if dry_run:
        return exit_code(
            len(plan.of_state(PlanState.RUN) + plan.of_state(PlanState.DONE)),
            len(plan.of_state(PlanState.BAD)),
            disk=False,
            interrupted=False,
            left=0,
        )
    run = BatchRun(options, bundle, view, executor(options))
    try:
        if on_start is not None:
            on_start(run)
        for slide in plan.of_state(PlanState.BAD):
            run.ledger.refuse(slide.key, slide.name, slide.reason)
        for slide in plan.of_state(PlanState.RUN):
            run.add(slide)
        load_ahead(options)
        run.work()
    finally:
        run.close()
    facts = RunFacts(
        bundle_name=bundle.name,
        bundle_sha256=bundle.sha256,
        started_utc=started,
        seconds=round(time.monotonic() - clock, 3),
        disk_error=run.board.disk_error,
        interrupted=run.interrupted,
        audit_head=run.audit_head,
    )
    report = make_report(plan, run.board.settled, options, facts)
    write_json_atomic(options.out / report_name(options.shard), report, staging_in=options.state)
    if report["counts"][AttemptState.DONE] and not (facts.disk_error or facts.interrupted):
        for finding in summarise(options):
            view.tell(finding)
    view.finished(report)
    return ExitCode(report["exit_code"])
