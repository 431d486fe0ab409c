"""Watch for slides and score them as they arrive.

A folder is polled, since change notifications do not cross network file systems; an archive is asked. A slide is taken
when it is complete. Nothing about the watch itself needs to be remembered: finished results and claims are on the disk,
so a restart goes on where it stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..atomic import is_whole
from ..bundle import load_bundle
from ..errors import ExitCode, UsageError
from ..system.waiting import wait_for
from ..writers import check_names
from .arrivals import Arrivals, FolderWatcher, WatchOptions
from .look import make_changes
from .options import BatchOptions
from .output import open_output, system_errors
from .planning.dicom_series import SeriesOf
from .planning.identity import ByLevels
from .planning.inputs import Entry
from .planning.plan import PlannedSlide
from .planning.planner import plan_batch
from .planning.probe import SafeProbe
from .progress import Unfailing, View
from .run import BatchRun, ExecutorFactory, local_executor
from .states import AttemptState, FindingKind, PlanState
from .summary import RunningSummary
from .workers.process import WorkerConfig
from .workers.tasks import Settled

ArrivalsFactory = Callable[[SeriesOf], Arrivals]
"""Makes the arrivals, once the output is open; given what tells the series of a DICOM file."""


class Watch:
    """The loop: poll, plan what arrived, put it on the board.

    Parameters
    ----------
    arrivals : callable
        Makes what gives the slides.
    options : BatchOptions
        As for a batch.
    poll_s : float
        Seconds between looks at the arrivals.
    view : View
        Shows what happens.
    executor : callable
        Makes the executor.

    Raises
    ------
    StampError
        For a bad bundle or an output folder of another bundle.
    """

    def __init__(
        self,
        arrivals: ArrivalsFactory,
        options: BatchOptions,
        poll_s: float,
        view: View,
        *,
        executor: ExecutorFactory = local_executor,
    ) -> None:
        self._options = options = replace(options, wait_for_others=False)
        self._poll_s = poll_s
        self._view = view
        check_names(options.infer.writers)
        self._bundle = load_bundle(
            options.bundle, require_signature=options.require_signature, adapter=options.infer.adapter
        )
        open_output(options, self._bundle, view.tell)
        self._probe = SafeProbe(WorkerConfig({"bundle": None}, options.state / "probe.log"))
        self._recognise = ByLevels(self._probe.levels, self._probe.identity)
        self._arrivals = arrivals(self._probe.series)
        self.batch = BatchRun(options, self._bundle, view, executor(options), on_settled=self._settled)
        self._changes = make_changes(options, self._probe)
        self._summary = RunningSummary(options, view)
        self._later: dict[Path, int] = {}
        self._stop = threading.Event()
        self._error: BaseException | None = None

    def run(self, *, once: bool = False) -> ExitCode:
        """Watch until stopped; with ``once``, until everything that is there is done.

        Raises
        ------
        StampError
            When the worker cannot start.
        """
        self.batch.board.hold_open(True)
        worker = threading.Thread(target=self._work, name="watch-executor")
        worker.start()
        try:
            while not self._stop.is_set() and worker.is_alive():
                later, self._later = self._later, {}
                for path, priority in [*later.items(), *self._arrivals.poll()]:
                    self._arrived(path, priority)
                self.batch.write_metrics()
                self._summary.look(idle=not any(self.batch.board.counts()))
                if once and not self._arrivals.pending() and not self._later:
                    break
                wait_for(self._stop, self._poll_s)
            self.batch.board.hold_open(False)
            while worker.is_alive():
                worker.join(timeout=0.2)
            self._arrivals.finish()
        finally:
            if worker.is_alive():
                self.batch.stop()
                worker.join()
            self._probe.close()
            self.batch.close()
            self._summary.finish(write=not (self.batch.interrupted or self.batch.board.disk_error or self._error))
        if self._error is not None:
            raise self._error
        return ExitCode.DISK if self.batch.board.disk_error else ExitCode.OK

    def stop(self) -> None:
        """Stop watching; what runs is abandoned and taken up again after a restart."""
        self._stop.set()
        self._arrivals.stop()
        self.batch.stop()

    def _work(self) -> None:
        try:
            self.batch.work()
        except BaseException as error:
            self._error = error

    def _arrived(self, path: Path, priority: int) -> None:
        plan = plan_batch(
            [Entry(path)],
            self._options.out,
            probe=self._probe,
            is_done=lambda key: is_whole(self._options.out / key),
            changes=self._changes,
            recognise=self._recognise,
            bytes_per_tile=0,
            tile_span_um=self._bundle.tile_px * self._bundle.mpp,
            mpp=self._options.infer.mpp,
        )
        for finding in plan.findings:
            if finding.kind in (FindingKind.CHANGED, FindingKind.BROKEN_RESULT):
                self._view.tell(finding)
        for slide in plan.slides:
            if slide.state == PlanState.BAD:
                self._refuse(slide)
            elif slide.state == PlanState.DONE:
                self._settled(slide, AttemptState.DONE)
            elif slide.state == PlanState.RUN and self._is_free(slide.key):
                self.batch.add(slide, priority=priority)
            elif slide.state == PlanState.RUN:  # it changed while it is being worked on: look again afterwards
                self._later[path] = priority

    def _is_free(self, key: str) -> bool:
        """Whether a slide is not waiting or being worked on here."""
        return key not in self.batch.slides or key in self.batch.board.settled

    def _refuse(self, slide: PlannedSlide) -> None:
        settled = Settled(slide.key, AttemptState.FAILED, slide.reason, by="plan")
        self.batch.ledger.refuse(slide.key, slide.name, slide.reason)
        self.batch.metrics.slide_ended(AttemptState.FAILED, 0.0)
        self._view.settled(settled, slide.path)
        self._settled(slide, AttemptState.FAILED)

    def _settled(self, slide: PlannedSlide, state: AttemptState) -> None:
        if state == AttemptState.DONE:
            self._summary.result_added()
        self._arrivals.settled(slide.path, slide.key, state)


def folder_arrivals(folder: Path, options: BatchOptions, watch: WatchOptions) -> ArrivalsFactory:
    """What gives the slides of a folder.

    Raises
    ------
    UsageError
        When the folder is not there.
    """
    if not folder.is_dir():
        raise UsageError("there is no such folder to watch", path=folder)
    return lambda series_of: FolderWatcher(folder, watch, skip=options.out, series_of=series_of)


def run_watch(
    arrivals: ArrivalsFactory,
    options: BatchOptions,
    poll_s: float,
    view: View,
    *,
    executor: ExecutorFactory = local_executor,
    once: bool = False,
    on_start: Callable[[Watch], None] | None = None,
) -> ExitCode:
    """Watch until stopped by a signal; see ``Watch``."""
    with system_errors(options.out):
        watching = Watch(arrivals, options, poll_s, Unfailing(view), executor=executor)
        if on_start is not None:
            on_start(watching)
        return watching.run(once=once)
