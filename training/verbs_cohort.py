"""The verb ``cohort``."""

from __future__ import annotations

from pathlib import Path

import click

from stamp_deploy.command import Command, option

_PATH = click.Path(path_type=Path)
OUTPUT, WORK = "Output", "Work"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cohort() -> None:
    """Turn spatial transcriptomics samples into a training cohort."""


@cohort.command(
    cls=Command,
    short_help="Build a cohort from a list of samples.",
    examples=(
        "cohort build cohort.toml -o cohort --jobs 4",
        "cohort build more.toml -o cohort --append",
        "cohort build cohort.toml --dry-run",
    ),
)
@click.argument("config", type=_PATH)
@option("-o", "--out", group=OUTPUT, type=_PATH, help="Cohort folder to be made.")
@option("--overwrite", group=OUTPUT, is_flag=True, help="Replace a finished cohort.")
@option("--append", group=OUTPUT, is_flag=True, help="Add samples to a finished cohort.")
@option(
    "-j", "--jobs", group=WORK, default=1, show_default=True, help="Samples made at the same time; 0: one per core."
)
@option("--dry-run", group=WORK, is_flag=True, help="Read and check every sample, cut no tiles, write nothing.")
@option("--no-pictures", group=OUTPUT, is_flag=True, help="Leave out the pictures for quality control.")
def build(
    config: Path, out: Path | None, overwrite: bool, append: bool, jobs: int, dry_run: bool, no_pictures: bool
) -> None:
    """Build a cohort folder from CONFIG, a TOML file that names the samples (see docs/cohort.md).

    Stopped at any point, the same command goes on from the samples that are finished.

    \b
    tile_px, mpp, min_genes, gmt, gene_table      of the whole cohort
    [[samples]]                                   id, patient_id, format and its files
    formats: legacy-st, visium, visium-hd, xenium, hest, anndata
    """
    from .cohort.build import build_cohort

    if append and overwrite:
        raise click.UsageError("--append keeps what --overwrite replaces: name one of them")
    if jobs < 0:
        raise click.UsageError("--jobs counts samples: 0 or more")
    if out is None and not dry_run:
        raise click.UsageError("name the folder to be made: -o DIR")
    made = build_cohort(
        config,
        out or Path("cohort"),
        overwrite=overwrite,
        append=append,
        jobs=jobs,
        dry_run=dry_run,
        pictures=not no_pictures,
        log=click.echo,
    )
    if dry_run:
        click.echo("dry run: every sample can be read; nothing was written")
    else:
        spots = sum(s.n_spots for s in made)
        click.echo(
            f"cohort  {out}: {len(made.samples)} samples of {len(made.patients)} patients, {spots:,} spots, tiles of "
            f"{made.tile_px} px at {made.mpp:g} um/px" + ("" if no_pictures else "; look at samples/*/qc.png")
        )


@cohort.command(cls=Command, examples=("cohort show cohort",))
@click.argument("folder", type=_PATH)
def show(folder: Path) -> None:
    """List the samples of a cohort FOLDER."""
    from rich.console import Console
    from rich.table import Table

    from .cohort import load_cohort

    found = load_cohort(folder)
    table = Table(title=f"tiles of {found.tile_px} px at {found.mpp:g} um/px", title_justify="left")
    for name in ("sample", "platform", "organ", "spots", "median counts", "um/px"):
        table.add_column(name, justify="left" if name in ("sample", "platform", "organ") else "right")
    for s in found:
        counts = s.qc.get("median_counts")
        shown = "-" if counts is None else f"{counts:,.0f}"
        table.add_row(s.id, s.platform, s.organ, f"{s.n_spots:,}", shown, f"{s.mpp:.4g}")
    Console().print(table)
