"""Watch a folder and score slides as they arrive.

The folder is polled, since change notifications do not cross network file systems. A slide is taken when
it is complete: its size and modification time have not changed for a while, or a marker file says so.
Nothing about the watch itself needs to be remembered: finished results and claims are on the disk, so a
restart goes on where it stopped.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..atomic import is_whole
from ..bundle import load_bundle
from ..errors import ExitCode, UsageError
from ..writers import check_names
from .options import BatchOptions
from .output import open_output, system_errors
from .planning.dicom_series import SeriesOf, read_series
from .planning.folder import find_slides
from .planning.inputs import Entry
from .planning.plan import PlannedSlide
from .planning.planner import plan_batch
from .planning.probe import SafeProbe
from .planning.slide_parts import slide_parts
from .progress import Unfailing, View
from .records.slide_states import file_state
from .run import BatchRun, ExecutorFactory, local_executor, make_changes
from .states import AttemptState, FindingKind, PlanState
from .workers.process import WorkerConfig
from .workers.tasks import Settled

URGENT, NORMAL = 0, 1
Signature = tuple[int, int, str]


@dataclass(frozen=True)
class WatchOptions:
    """When a slide is complete, and which go first.

    Attributes
    ----------
    settle_s : float
        Seconds that size and modification time must not change.
    poll_s : float
        Seconds between looks at the folder.
    marker : str, optional
        Suffix of marker files: with ".done", a.svs is complete when a.svs.done is there (and only then).
    urgent : str
        Name of the sub-folder whose slides go first.
    """

    settle_s: float = 30.0
    poll_s: float = 5.0
    marker: str | None = None
    urgent: str = "urgent"


class FolderWatcher:
    """Finds slides that are complete; pure bookkeeping around directory listings.

    Parameters
    ----------
    folder : Path
        The folder, searched with its sub-folders.
    options : WatchOptions
        When a slide is complete.
    skip : Path, optional
        A sub-folder not to search (the output).
    series_of : callable
        Gives the series of a DICOM file.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self,
        folder: Path,
        options: WatchOptions,
        *,
        skip: Path | None = None,
        series_of: SeriesOf = read_series,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._options = options
        self._skip = skip
        self._series_of = series_of
        self._clock = clock
        self._seen: dict[Path, tuple[Signature, float]] = {}
        self._given: dict[Path, Signature] = {}

    def poll(self) -> list[tuple[Path, int]]:
        """Slides that became complete since the last call, with their priority, urgent ones first.

        A slide that changes after it was given out (a copy that had stalled) is given out again when it
        has settled again.
        """
        now = self._clock()
        paths = find_slides(self._folder, skip=self._skip, series_of=self._series_of)
        present = set(paths)
        for gone in [path for path in self._seen if path not in present]:
            del self._seen[gone]
            self._given.pop(gone, None)
        ready = []
        for path in paths:
            signature = _signature(path, self._series_of)
            if signature is None:
                continue
            before = self._seen.get(path)
            if before is None or before[0] != signature:
                self._seen[path] = before = (signature, now)
            if self._given.get(path) != signature and self._is_complete(path, signature, now - before[1]):
                self._given[path] = signature
                ready.append((path, self._priority(path)))
        return sorted(ready, key=lambda item: (item[1], self._seen[item[0]][0][1], item[0]))

    def pending(self) -> bool:
        """Whether slides are there that have not been given out as they are now."""
        return any(self._given.get(path) != signature for path, (signature, _) in self._seen.items())

    def _is_complete(self, path: Path, signature: Signature, stable_s: float) -> bool:
        if self._options.marker is not None:
            return os.path.exists(path.with_name(path.name + self._options.marker))
        return signature[0] > 0 and stable_s >= self._options.settle_s

    def _priority(self, path: Path) -> int:
        parts = path.relative_to(self._folder).parts[:-1]
        return URGENT if self._options.urgent in parts else NORMAL


def _signature(path: Path, series_of: SeriesOf) -> Signature | None:
    """(bytes, newest modification in ns, state) of the files of a slide; None where one went away."""
    try:
        parts = slide_parts(path, series_of)
        stats = [part.stat() for part in parts]
    except OSError:
        return None
    return sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats), file_state(parts)


class Watch:
    """The loop: poll, plan what arrived, put it on the board.

    Parameters
    ----------
    folder : Path
        The folder to watch.
    options : BatchOptions
        As for a batch.
    watch : WatchOptions
        When slides are complete.
    view : View
        Shows what happens.
    executor : callable
        Makes the executor.

    Raises
    ------
    UsageError
        When the folder is not there.
    StampError
        For a bad bundle or an output folder of another bundle.
    """

    def __init__(
        self,
        folder: Path,
        options: BatchOptions,
        watch: WatchOptions,
        view: View,
        *,
        executor: ExecutorFactory = local_executor,
    ) -> None:
        if not folder.is_dir():
            raise UsageError("there is no such folder to watch", path=folder)
        self._options = options = replace(options, wait_for_others=False)
        self._watch = watch
        self._view = view
        check_names(options.infer.writers)
        self._bundle = load_bundle(
            options.bundle, require_signature=options.require_signature, adapter=options.infer.adapter
        )
        open_output(options, self._bundle, view.tell)
        self._probe = SafeProbe(WorkerConfig({"bundle": None}, options.state / "probe.log"))
        self._watcher = FolderWatcher(folder, watch, skip=options.out, series_of=self._probe.series)
        self.batch = BatchRun(options, self._bundle, view, executor(options))
        self._changes = make_changes(options, self._probe)
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
                for path, priority in [*later.items(), *self._watcher.poll()]:
                    self._arrived(path, priority)
                if once and not self._watcher.pending() and not self._later:
                    break
                self._stop.wait(self._watch.poll_s)
            self.batch.board.hold_open(False)
            while worker.is_alive():
                worker.join(timeout=0.2)
        finally:
            if worker.is_alive():
                self.batch.stop()
                worker.join()
            self._probe.close()
            self.batch.close()
        if self._error is not None:
            raise self._error
        return ExitCode.DISK if self.batch.board.disk_error else ExitCode.OK

    def stop(self) -> None:
        """Stop watching; what runs is abandoned and taken up again after a restart."""
        self._stop.set()
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


def run_watch(
    folder: Path,
    options: BatchOptions,
    watch: WatchOptions,
    view: View,
    *,
    executor: ExecutorFactory = local_executor,
    once: bool = False,
    on_start: Callable[[Watch], None] | None = None,
) -> ExitCode:
    """Watch ``folder`` until stopped by a signal; see ``Watch``."""
    with system_errors(options.out):
        watching = Watch(folder, options, watch, Unfailing(view), executor=executor)
        if on_start is not None:
            on_start(watching)
        return watching.run(once=once)
