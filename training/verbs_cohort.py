"""The verbs ``cohort`` and ``evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stamp_deploy.command import Command, option

DATA, ROWS, OUTPUT = "Data", "What is compared", "Output"
_PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cohort() -> None:
    """Turn spatial transcriptomics samples into a training cohort."""


@cohort.command(cls=Command, examples=("cohort build cohort.toml -o cohort", "cohort build cohort.toml --dry-run"))
@click.argument("config", type=_PATH)
@click.option("-o", "--out", type=_PATH, help="Cohort folder to be made.")
@click.option("--overwrite", is_flag=True, help="Replace a finished cohort.")
@click.option("--dry-run", is_flag=True, help="Read and check every sample, cut no tiles, write nothing.")
@click.option("--no-pictures", is_flag=True, help="Leave out the QC sheets.")
def build(config: Path, out: Path | None, overwrite: bool, dry_run: bool, no_pictures: bool) -> None:
    """Build a cohort folder from CONFIG, a TOML file that names the samples (see docs/cohort.md).

    \b
    tile_px, mpp, min_genes, gmt, gene_table      of the whole cohort
    [[samples]]                                   id, patient_id, format and its files
    formats: legacy-st, visium, visium-hd, xenium, hest, anndata
    """
    from .cohort.build import build_cohort

    if out is None and not dry_run:
        raise click.UsageError("name the folder to be made: -o DIR")
    made = build_cohort(
        config,
        out or Path("cohort"),
        overwrite=overwrite,
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


@click.command(
    cls=Command,
    examples=(
        "evaluate run",
        "evaluate run --cohort another-cohort -o evaluation",
        "evaluate runs/lora --ablations runs",
    ),
)
@click.argument("run", type=_PATH)
@option(
    "--cohort", group=DATA, type=_PATH, help="Test on every sample of another cohort, not on the run's held-out ones."
)
@option(
    "-o", "--out", group=OUTPUT, type=_PATH, help="Folder for evaluation.json and pictures.  [default: RUN/evaluation]"
)
@option(
    "--compare", group=ROWS, multiple=True, metavar="NAME=RUN", help="A further run for the table; may be repeated."
)
@option("--ablations", group=ROWS, type=_PATH, help="Folder of runs: every subfolder with a run.json is a row.")
@option("--train-cohort", group=DATA, type=_PATH, help="Where the run's training cohort is now.")
@option("--gmt", group=DATA, type=_PATH, help="Where the run's gene sets are now.")
@option("--samples", group=DATA, default="", help="Test these samples only, as A,B.")
@option("--no-tier1", group=ROWS, is_flag=True, help="Leave out single genes.")
@option("--no-pictures", group=OUTPUT, is_flag=True, help="Leave out maps and scatter plots.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@option("--seed", group=ROWS, default=0, show_default=True, help="Of the bootstrap.")
@option("--overwrite", group=OUTPUT, is_flag=True, help="Replace a finished evaluation.")
@option("--json", "as_json", group=OUTPUT, is_flag=True, help="Print evaluation.json instead of the table.")
def evaluate(
    run: Path,
    cohort: Path | None,
    out: Path | None,
    compare: tuple[str, ...],
    ablations: Path | None,
    train_cohort: Path | None,
    gmt: Path | None,
    samples: str,
    no_tier1: bool,
    no_pictures: bool,
    device: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Table of a RUN against its baselines and controls, on sections that it never saw.

    These are its held-out samples, or every sample of another cohort.
    """
    import json

    from rich.console import Console

    from stamp_deploy.atomic import check_output

    from .evaluate import EvaluateOptions
    from .evaluate import evaluate as compute
    from .evaluate.report import footnotes, rich_table, write_evaluation

    pairs = []
    for item in compare:
        name, equals, folder = item.partition("=")
        if not (name and equals and folder):
            raise click.UsageError(f"--compare {item}: write NAME=RUN")
        pairs.append((name, Path(folder)))
    target = out or run / "evaluation"
    check_output(target, overwrite=overwrite)
    options = EvaluateOptions(
        run=run,
        cohort=cohort,
        train_cohort=train_cohort,
        gmt=gmt,
        compare=tuple(pairs),
        ablations=ablations,
        samples=tuple(name.strip() for name in samples.split(",") if name.strip()),
        tier1=not no_tier1,
        device=device,
        seed=seed,
    )
    with Console(stderr=True).status("evaluating") as status:
        result = compute(options, lambda what, done, of: status.update(f"{what}: {done} of {of} tiles"))
    write_evaluation(result, target, overwrite=overwrite, pictures=not no_pictures)
    if as_json:
        click.echo(json.dumps(result.document, indent=2, allow_nan=False))
        return
    table = rich_table(result)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for line in footnotes(result):
        click.echo(line)
    click.echo(f"result  {target}")
