"""The verb ``render``: further formats of a result, without scoring again."""

from __future__ import annotations

from pathlib import Path

import click

from ..command import Command, option
from .options import OUTPUT, PATH, overwrite_option, write_option


@click.command(
    cls=Command,
    examples=(
        "render result --write report,geojson",
        "render results/slide-0123456789ab --write anndata -o for-scanpy",
        "render result --write dicom-sr --slide slide.dcm",
    ),
)
@click.argument("result", type=PATH)
@option(
    "--slide", type=PATH, group="Slide",
    help="Where the scored slide lies: formats that read its headers again need it (DICOM).",
)  # fmt: skip
@option("-o", "--out", type=PATH, group=OUTPUT, show_default="RESULT-render, in this folder", help="Folder to be made.")
@write_option()
@overwrite_option
def render(result: Path, slide: Path | None, out: Path | None, writers: tuple[str, ...], overwrite: bool) -> None:
    """Write further formats of a finished RESULT, without scoring again.

    RESULT must hold the formats json and hdf5, as it does by default. It is not changed: it stays as its hashes and
    the audit log say, and the new files go to a folder of their own.
    """
    from ..api import read_result

    target = out or Path(f"{result.resolve().name}-render")
    for path in read_result(result, slide=slide).write(target, writers, overwrite=overwrite):
        click.echo(f"written {path.relative_to(target)}")
    click.echo(f"result  {target}")
