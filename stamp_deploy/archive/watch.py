"""Watch an archive: slides that arrive are fetched, scored as any other, and their results pushed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..batch.options import BatchOptions
from ..batch.planning.plan import Finding
from ..batch.progress import View
from ..batch.run import ExecutorFactory
from ..batch.states import FindingKind
from ..batch.watch import Watch, run_watch
from ..errors import ExitCode, UsageError
from .arrivals import ArchiveArrivals, ArchiveWatch
from .client import Client
from .query import SeriesRow
from .records import SeriesRecords
from .trigger import Trigger

RECORDS = "archive"
"""Folder in the state folder for what became of each series."""
SLIDES = "slides-of-archive"
"""Folder in the state folder for the slides that are being worked on."""
LOOP_S = 2.0
"""Seconds between looks at what was scored; the archive is asked every `poll_s`."""
TriggerFactory = Callable[[Client, SeriesRecords, Callable[[SeriesRow], bool]], Trigger]


def watch_archive(
    client: Client,
    trigger: TriggerFactory,
    options: BatchOptions,
    how: ArchiveWatch,
    view: View,
    *,
    executor: ExecutorFactory,
    once: bool = False,
    on_start: Callable[[Watch], None] | None = None,
) -> ExitCode:
    """Watch until stopped by a signal; with `once`, until everything that is there now is done.

    Raises
    ------
    ArchiveError
        The archive refuses the first look.
    UsageError
        Results are to be pushed and no DICOM format is written; or another watch works in this output.
    StampError
        As for a batch.
    """
    if how.push and not any(name.startswith("dicom-") for name in options.infer.writers):
        raise UsageError(
            "results are to be pushed, and no DICOM format is written",
            remedy="add dicom-pmap, dicom-seg or dicom-sr to --write, or give --no-push",
        )
    made: list[ArchiveArrivals] = []
    records = SeriesRecords(options.state / RECORDS)

    def tell(series: str, detail: str) -> None:
        view.tell(Finding(FindingKind.ARCHIVE, series, detail))

    def arrivals(_: object) -> ArchiveArrivals:
        made.append(ArchiveArrivals(client, records, partial(trigger, client, records), how, options.out, tell))
        return made[0]

    try:
        code = run_watch(
            arrivals, options, min(LOOP_S, how.poll_s), view, executor=executor, once=once, on_start=on_start
        )
    finally:
        records.close()
    return made[0].exit_code if code == ExitCode.OK and once else code
