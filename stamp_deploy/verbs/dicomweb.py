"""The verbs ``dicomweb pull``, ``dicomweb push`` and ``dicomweb watch``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..command import Command, option
from ..errors import UsageError
from .archive_options import server_options, take_client
from .options import OUTPUT, PATH

WHICH = "Which slides"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def dicomweb() -> None:
    """Slides out of an image archive, results into it, by DICOMweb."""


@dicomweb.command(
    cls=Command,
    examples=(
        "dicomweb pull https://pacs.example.org/dicom-web --accession S26-1234 -o slides --user stamp",
        "dicomweb pull https://pacs.example.org/dicom-web --series 1.2.826.0.1 -o slides --token-file token",
    ),
)
@click.argument("url")
@option("--accession", default="", group=WHICH, help="Accession number of the case.")
@option("--study", default="", group=WHICH, help="Study Instance UID.")
@option("--series", default="", group=WHICH, help="Series Instance UID.")
@option("--container", default="", group=WHICH, help="Container identifier: the number on the glass slide.")
@server_options
@option("-o", "--out", type=PATH, required=True, group=OUTPUT, help="Folder for the slides, each in OUT/SERIES/.")
def pull(out: Path, accession: str, study: str, series: str, container: str, **rest: Any) -> None:
    """Fetch slides from the DICOMweb archive at URL, as they are stored there.

    What is given must all fit. Instances that are here already are not fetched again. Labels and overviews, which
    can show names, are left out.
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
            got = pull_series(client, row, out)
            levels = f"{len(got.instances)} levels" if len(got.instances) > 1 else "1 level"
            was = f"{got.fetched} fetched, {got.size_bytes / 1e6:.1f} MB" if got.fetched else "all here already"
            click.echo(f"slide  {got.folder}: {levels}, {was}")
