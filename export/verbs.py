"""The command `stamp-deploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stamp_deploy.command import Command, option, split_names

if TYPE_CHECKING:
    from .config import ExportConfig

INPUTS, ENCODER, OUTPUT = "What goes in besides RUNS", "Encoder", "Output"


@click.command(
    cls=Command,
    examples=(
        "export run -o bundle",
        "export run -o bundle --also int8 --heads heads",
        "export lung breast -o bundle",
        "export run -o bundle --config export.toml",
    ),
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@option("-o", "--out", group=OUTPUT, type=click.Path(path_type=Path), required=True, help="Bundle folder to be made.")
@option(
    "--config",
    group=INPUTS,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of these settings; options on the command line outrank it.",
)
@option(
    "--precision",
    group=ENCODER,
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    show_default="fp32",
    help="Precision of the encoder that every engine can load.",
)
@option(
    "--also",
    group=ENCODER,
    type=click.Choice(["int8"]),
    multiple=True,
    help="Add the encoder in this precision, too, for engines that run it faster. `infer --precision auto` or "
    "`--precision int8` uses it where it passes parity.",
)
@option("--also-by-default", group=ENCODER, is_flag=True, help="Let `infer` use what --also adds without --precision.")
@option(
    "--tiles",
    group=INPUTS,
    type=click.Path(exists=True, path_type=Path),
    help="Tissue tiles for parity: a .npy file, a slide, or a folder of images; the run's cohort by default.",
)
@option(
    "--heads",
    group=INPUTS,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that train-head wrote; the run's own by default.",
)
@option(
    "--evaluation",
    group=INPUTS,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that evaluate wrote; the run's own by default.",
)
@option(
    "--adapters",
    group=OUTPUT,
    help="Names of the adapters where several RUNS on one foundation model become one bundle, as lung,breast; by "
    "default those of the runs' folders. `infer --adapter lung` picks one.",
)
@option("--triton", group=OUTPUT, type=click.Path(path_type=Path), help="Write a Triton model repository there, too.")
@option("--name", group=OUTPUT, help="Name of the bundle; the output folder's by default.")
@option("--overwrite", group=OUTPUT, is_flag=True, help="Replace a finished bundle.")
def export(
    runs: tuple[Path, ...],
    out: Path,
    config: Path | None,
    precision: str | None,
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
    from .config import check_alone, read_config
    from .export import describe, export_run

    given = {
        "precision": precision,
        "also": also,
        "also_by_default": also_by_default,
        "tiles": _text(tiles),
        "heads": _text(heads),
        "evaluation": _text(evaluation),
        "adapters": split_names(adapters or ""),
        "triton": _text(triton),
        "name": name,
    }
    settings = read_config(config, given)
    if len(runs) > 1 or adapters is not None or settings.adapters:
        check_alone(settings)
        _export_adapters(runs, out, settings, overwrite)
        return
    bundle = export_run(
        runs[0],
        out,
        precision=settings.precision,
        also=settings.also,
        also_by_default=settings.also_by_default,
        tiles=settings.tiles or None,
        heads=settings.heads or None,
        evaluation=settings.evaluation or None,
        name=settings.name or None,
        overwrite=overwrite,
    )
    click.echo(describe(bundle))
    for sentence in bundle.lacks:
        click.echo(f"not known: {sentence}")
    if settings.triton:
        from stamp_deploy.bundle.triton import write_repository

        write_repository(bundle, Path(settings.triton), overwrite=overwrite)
    click.echo(f"bundle  {out}  {bundle.sha256[:12]}")


def _text(path: Path | None) -> str:
    return "" if path is None else str(path)


def _export_adapters(runs: tuple[Path, ...], out: Path, settings: ExportConfig, overwrite: bool) -> None:
    """One bundle of several runs, and what it says of each."""
    from .adapters import export_adapters

    made = export_adapters(
        runs,
        out,
        names=settings.adapters,
        tiles=Path(settings.tiles) if settings.tiles else None,
        name=settings.name or None,
        overwrite=overwrite,
    )
    for adapter, bundle in made.items():
        for sentence in bundle.lacks:
            click.echo(f"not known of {adapter}: {sentence}")
        click.echo(
            f"adapter {adapter}: {len(bundle.pathways)} pathways, {len(bundle.heads)} heads  {bundle.sha256[:12]}"
        )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"bundle  {out}, {size / 1e6:.1f} MB")
