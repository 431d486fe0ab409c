"""The verbs ``summary`` and ``compare``: many results side by side, and two results of one slide."""

from __future__ import annotations

from pathlib import Path

import click

from ..atomic import check_output
from ..command import Command, option, print_table
from .options import OUTPUT, PATH, json_option, overwrite_option


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
    metavar="SHEET",
    help="Slides sheet (CSV or TSV) with the columns slide and case_id; a batch's own sheet is known already.",
)
@option("-o", "--out", "folder", type=PATH, group=OUTPUT, show_default="OUT/summary", help="Folder to write into.")
def summary(out: Path, cases: Path | None, folder: Path | None) -> None:
    """Put all results of OUT, the folder of a batch, side by side.

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


@click.command(
    cls=Command,
    examples=(
        "compare first second -o comparison",
        "compare on-cpu on-gpu",
        "compare scanner-a scanner-b --different-slides -o rescan",
    ),
)
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@option(
    "--different-slides",
    group="Matching",
    is_flag=True,
    help="Allow results of different slides, such as two scans: tiles are matched by position, nothing is aligned.",
)
@option(
    "-o",
    "--out",
    type=PATH,
    group=OUTPUT,
    help="Folder to be made: comparison.json, agreement.csv, difference maps. By default the table is only printed.",
)
@overwrite_option
@json_option
def compare(
    first: Path, second: Path, different_slides: bool, out: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Compare two results of one slide, FIRST and SECOND: another bundle, engine or option.

    Tiles are matched by position. Per pathway: bias with limits of agreement (Bland and Altman), Pearson's r, Lin's
    concordance, and a map of the difference, SECOND minus FIRST. Both must hold the formats json and hdf5.
    """
    import json

    from ..comparison import compare_results, write_comparison
    from ..heads import value_text
    from ..result_files import read_result

    if out is not None:
        check_output(out, overwrite=overwrite)
    found = compare_results(read_result(first), read_result(second), different_slides=different_slides)
    if out is not None:
        write_comparison(found, out, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False))
        return
    tiles = found.tiles
    click.echo(
        f"tiles   {len(tiles)} pairs; {tiles.only_first} and {tiles.only_second} without a partner, "
        f"{tiles.left_out} pairs left out"
    )
    click.echo(f"unit    {found.unit}; differences are second minus first")
    print_table(
        ("pathway", "bias", "limits of agreement", "r", "CCC"),
        (
            (
                item.name,
                f"{item.bias:+.3g}",
                f"{item.low:+.3g} to {item.high:+.3g}",
                *map(_correlation, (item.pearson_r, item.ccc)),
            )
            for item in found.agreements
        ),
        right=("bias", "limits of agreement", "r", "CCC"),
    )
    for call in found.calls():
        told = "same call" if call["same_call"] else "DIFFERENT CALLS"
        values = ", ".join(value_text(call["kind"], call[key], 3) for key in ("first_value", "second_value"))
        both = f"{call['first'] or 'none'} and {call['second'] or 'none'}"
        click.echo(f"call    {call['head']}: {both} ({values}): {told}")
    for note in found.notes:
        click.echo(f"warning {note}", err=True)
    if out is not None:
        click.echo(f"result  {out}")


def _correlation(value: float | None) -> str:
    """Three decimals, and no 1.000 that is not exact but for rounding."""
    if value is None:
        return "-"
    return "> 0.999" if 0.9995 <= value < 1 - 1e-12 else f"{value:.3f}"
