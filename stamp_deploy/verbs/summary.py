"""The verbs ``summary`` and ``compare``: many results beside each other, and two results of one slide."""

from __future__ import annotations

from pathlib import Path

import click

from ..command import Command, option
from .options import OUTPUT, PATH


@click.command(
    cls=Command,
    examples=(
        "summary results",
        "summary results --cases slides.csv -o for-the-board",
    ),
)
@click.argument("out", type=PATH)
@option(
    "--cases",
    type=PATH,
    help="Slides sheet (CSV or TSV) with the columns slide and case_id; a batch's own sheet is known already.",
)
@option("-o", "--out", "folder", type=PATH, group=OUTPUT, show_default="OUT/summary", help="Folder to write into.")
def summary(out: Path, cases: Path | None, folder: Path | None) -> None:
    """Put all results of OUT, the folder of a batch, beside each other.

    Writes pathways, figures, calls and cases as CSV and Parquet, a clustered heat map of slides by pathways, and
    index.html with thumbnails, flags and links to the reports. `batch` does this at its end.
    """
    from ..cases import write_summary

    written = write_summary(out, folder, None if cases is None else _cases(cases))
    click.echo(f"slides  {written.slides}, in {written.cases} cases")
    for unread in written.unread:
        click.echo(f"warning {unread.key} is left out: {unread.cause}", err=True)
    click.echo(f"summary {written.folder / 'index.html'}")


def _cases(sheet: Path) -> dict[str, str]:
    """Name of a slide's file -> its case.

    Raises
    ------
    UsageError
        The sheet is not understood, names no case, or puts one file name into two cases.
    """
    from ..batch.planning.inputs import read_manifest
    from ..errors import UsageError

    found: dict[str, str] = {}
    for entry in read_manifest(sheet):
        if found.setdefault(entry.path.name, entry.case_id) != entry.case_id:
            raise UsageError(
                f"{entry.path.name} stands in it twice, with two cases", path=sheet, remedy="leave one of the lines"
            )
    found = {name: case for name, case in found.items() if case}
    if not found:
        raise UsageError("it names no case", path=sheet, remedy="add a column case_id")
    return found
