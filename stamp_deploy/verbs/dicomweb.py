"""The verbs ``dicomweb pull``, ``dicomweb push`` and ``dicomweb watch``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..command import Command, option
from ..config import DEFAULT_WRITERS
from ..errors import UsageError
from .archive_options import push_all, say_pulled, server_options, take_client
from .batch import ARRIVAL, exit_with, scoring_options, stop_on_signals, take_batch_options
from .options import OUTPUT, PATH

if TYPE_CHECKING:
    from ..archive.client import Client
    from ..archive.query import SeriesRow
    from ..archive.records import SeriesRecords
    from ..archive.trigger import Trigger

WHICH = "Which slides"
DICOM_FORMATS = ("dicom-pmap", "dicom-seg", "dicom-sr")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def dicomweb() -> None:
    """Slides out of an image archive, results into it, by DICOMweb."""


@dicomweb.command(
    cls=Command,
    short_help="Fetch slides from an archive.",
    examples=(
        "dicomweb pull https://pacs.example.org/dicom-web --accession S26-1234 -o slides --user stamp",
        "dicomweb pull https://pacs.example.org/dicom-web --series 1.2.826.0.1 -o slides --token-file token",
    ),
)
@click.argument("archive", metavar="URL")
@option("--accession", default="", group=WHICH, help="Accession number of the case.")
@option("--study", default="", group=WHICH, help="Study Instance UID.")
@option("--series", default="", group=WHICH, help="Series Instance UID.")
@option("--container", default="", group=WHICH, help="Container identifier: the number on the glass slide.")
@server_options
@option("-o", "--out", type=PATH, required=True, group=OUTPUT, help="Folder for the slides, each in OUT/SERIES/.")
def pull(out: Path, accession: str, study: str, series: str, container: str, **rest: Any) -> None:
    """Fetch slides from the DICOMweb archive at URL, as they are stored there.

    A slide must match everything that is given. Instances that are here already are not fetched again. Labels and
    overviews, which can show names, are left out.
    """
    from ..archive.pull import pull_series
    from ..archive.query import find_series
    from ..archive.uids import given_key, given_uid

    wanted = {
        "accession": accession and given_key(accession, "accession number"),
        "container": container and given_key(container, "container identifier"),
        "study": study and given_uid(study, "study"),
        "series": series and given_uid(series, "series"),
    }
    if not any(wanted.values()):
        raise UsageError(
            "nothing says which slides are wanted", remedy="give --accession, --study, --series or --container"
        )
    with take_client(rest) as client:
        rows = find_series(client, **wanted)
        if not rows:
            raise UsageError("the archive holds no slide that fits", remedy="check the numbers, letter by letter")
        for row in rows:
            say_pulled(pull_series(client, row, out))


@dicomweb.command(
    cls=Command,
    short_help="Store results in an archive.",
    examples=(
        "dicomweb push results https://pacs.example.org/dicom-web --user stamp --password-file secret",
        "dicomweb push results/slide-0123456789ab https://pacs.example.org/dicom-web --token-file token",
    ),
)
@click.argument("result", type=PATH)
@click.argument("archive", metavar="URL")
@server_options
def push(result: Path, **rest: Any) -> None:
    """Store the DICOM objects of RESULT, or of every result in a batch's output, in the archive at URL.

    Each is looked up first, sent only where it is missing, then fetched back and compared. So it can be run again at
    any time. An archive that keeps something else under a UID is an error (exit code 8).
    """
    from ..archive.push import WebKeeper

    with take_client(rest) as client:
        push_all(WebKeeper(client), result)


@dicomweb.command(
    cls=Command,
    short_help="Score slides as they arrive in an archive.",
    examples=(
        "dicomweb watch https://pacs.example.org/dicom-web --bundle bundle -o results --token-file token",
        "dicomweb watch https://pacs.example.org/dicom-web --bundle bundle -o results --no-push --once",
    ),
)
@click.argument("archive", metavar="URL")
@server_options
@option(
    "--days",
    default=7,
    show_default=True,
    group=ARRIVAL,
    help="Search studies as far back as so many days before the last look, by study date.",
)
@option(
    "--settle",
    "settle_s",
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    group=ARRIVAL,
    help="A series is complete when its number of instances has not changed for so long.",
)
@option(
    "--poll", "poll_s", metavar="SECONDS", default=30.0, show_default=True, group=ARRIVAL, help="Time between looks."
)
@option(
    "--changes",
    is_flag=True,
    group=ARRIVAL,
    help="Orthanc only: read its list of changes instead of searching; URL ends in /dicom-web.",
)
@option(
    "--worklist",
    metavar="LABEL",
    group=ARRIVAL,
    help="Take workitems with this label from the archive's worklist (UPS-RS) instead; * for any label.",
)
@option("--once", is_flag=True, group=ARRIVAL, help="Stop when everything that is there now is done.")
@option(
    "--ahead", default=2, show_default=True, group=ARRIVAL, help="Fetch at most so many slides before they are scored."
)
@scoring_options(writers=(*DEFAULT_WRITERS, *DICOM_FORMATS))
@option(
    "--slides",
    type=PATH,
    group=OUTPUT,
    show_default="OUT/.stamp/slides-of-archive",
    help="Folder for slides while they are worked on.",
)
@option("--keep-slides", is_flag=True, group=OUTPUT, help="Keep them after they were scored.")
@option("--no-push", is_flag=True, group=OUTPUT, help="Do not store results in the archive.")
def watch(
    worklist: str | None,
    days: int,
    settle_s: float,
    poll_s: float,
    changes: bool,
    once: bool,
    ahead: int,
    slides: Path | None,
    keep_slides: bool,
    no_push: bool,
    **rest: Any,
) -> None:
    """Score slides as they arrive in the DICOMweb archive at URL, and store their results there.

    Each slide is scored once, whatever the number of looks and restarts. Stop it with SIGTERM; it resumes.
    """
    from ..archive.arrivals import ArchiveWatch
    from ..archive.assigned import Assigned
    from ..archive.changes import Changes
    from ..archive.trigger import Search
    from ..archive.watch import SLIDES, watch_archive
    from ..archive.worklist import Worklist
    from ..batch.progress import JsonView

    if min(days, settle_s) < 0 or min(poll_s, ahead) <= 0:
        raise UsageError("--days and --settle must be 0 or more, --poll and --ahead above 0")
    if changes and worklist is not None:
        raise UsageError("--changes and --worklist are given", remedy="give one of them")
    names = rest.pop("names")
    client = take_client(rest)
    options, factory = take_batch_options(**rest)

    def trigger(client: Client, records: SeriesRecords, is_known: Callable[[SeriesRow], bool]) -> Trigger:
        if worklist is not None:
            return Assigned(Worklist(client), records, options.out, label=worklist, most=ahead)
        return Changes(client, records) if changes else Search(client, records, is_known, days=days, settle_s=settle_s)

    with client:
        code = watch_archive(
            client,
            trigger,
            options,
            ArchiveWatch(
                slides=slides or options.state / SLIDES,
                poll_s=poll_s,
                ahead=ahead,
                push=not no_push,
                keep_slides=keep_slides,
                retry_failed=options.retry_failed,
            ),
            JsonView(names=names),
            executor=factory,
            once=once,
            on_start=stop_on_signals,
        )
    exit_with(code)
