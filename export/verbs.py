"""The command `stamp-deploy export`."""

from __future__ import annotations

from pathlib import Path

import click

from stamp_deploy.command import Command
from stamp_deploy.errors import UsageError


@click.command(
    cls=Command,
    examples=(
        "export run -o bundle",
        "export run -o bundle --also int8 --heads heads",
        "export lung breast -o bundle",
    ),
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Bundle folder to be made.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Precision of the encoder that every engine can load.",
)
@click.option(
    "--also",
    type=click.Choice(["int8"]),
    multiple=True,
    help="Carry the encoder in this precision, too, for the engines that run it faster. `infer --precision auto` or "
    "`--precision int8` uses it where parity accepts it.",
)
@click.option("--also-by-default", is_flag=True, help="Let `infer` use what --also adds without being asked.")
@click.option(
    "--tiles",
    type=click.Path(exists=True, path_type=Path),
    help="Tissue tiles for parity: a .npy file, a slide, or a folder of images; the run's cohort by default.",
)
@click.option(
    "--heads",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that train-head wrote; the run's own by default.",
)
@click.option(
    "--evaluation",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that evaluate wrote; the run's own by default.",
)
@click.option(
    "--adapters",
    help="Names of the adapters where several RUNS on one foundation model become one bundle, as lung,breast; by "
    "default those of the runs' folders. `infer --adapter lung` picks one.",
)
@click.option("--triton", type=click.Path(path_type=Path), help="Write a Triton model repository there, too.")
@click.option("--name", help="Name of the bundle; the output folder's by default.")
@click.option("--overwrite", is_flag=True, help="Replace a finished bundle.")
def export(
    runs: tuple[Path, ...],
    out: Path,
    precision: str,
    also: tuple[str, ...],
    also_by_default: bool,
    tiles: Path | None,
    heads: Path | None,
    evaluation: Path | None,
    adapters: str | None,
    triton: Path | None,
    name: str | None,
    overwrite: bool,
) -> None:
    """Merge a run's adapter and compile it into a bundle, or leave nothing behind.

    Several RUNS on one foundation model become one bundle that holds their shared weights once.
    """
    from .export import describe, export_run

    if len(runs) > 1 or adapters is not None:
        if heads or evaluation or triton or also or also_by_default or precision != "fp32":
            raise UsageError(
                "several adapters in one bundle take only --adapters, --tiles, --name and --overwrite",
                remedy="leave the other options out; each run brings its own heads and evaluation",
            )
        _export_adapters(runs, out, adapters, tiles, name, overwrite)
        return
    bundle = export_run(
        runs[0],
        out,
        precision=precision,
        also=also,
        also_by_default=also_by_default,
        tiles=tiles,
        heads=heads,
        evaluation=evaluation,
        name=name,
        overwrite=overwrite,
    )
    click.echo(describe(bundle))
    for sentence in bundle.lacks:
        click.echo(f"not known: {sentence}")
    if triton is not None:
        from stamp_deploy.bundle.triton import write_repository

        write_repository(bundle, triton, overwrite=overwrite)
    click.echo(f"bundle  {out}  {bundle.sha256[:12]}")


def _export_adapters(
    runs: tuple[Path, ...], out: Path, adapters: str | None, tiles: Path | None, name: str | None, overwrite: bool
) -> None:
    """One bundle of several runs, and what it says of each."""
    from .adapters import export_adapters

    names = tuple(part.strip() for part in (adapters or "").split(",") if part.strip())
    for adapter, bundle in export_adapters(runs, out, names=names, tiles=tiles, name=name, overwrite=overwrite).items():
        for sentence in bundle.lacks:
            click.echo(f"not known of {adapter}: {sentence}")
        click.echo(
            f"adapter {adapter}: {len(bundle.pathways)} pathways, {len(bundle.heads)} heads  {bundle.sha256[:12]}"
        )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"bundle  {out}, {size / 1e6:.1f} MB")
