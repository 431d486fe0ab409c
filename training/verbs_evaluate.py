"""The verbs ``evaluate`` and ``hest-bench``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stamp_deploy.command import Command, names_of, option

DATA, ROWS, OUTPUT = "Data", "What is compared", "Output"
_PATH = click.Path(path_type=Path)


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
@option("--samples", group=DATA, default="", callback=names_of, help="Test these samples only, as A,B.")
@option("--no-tier1", group=ROWS, is_flag=True, help="Leave out the table of single genes.")
@option("--no-pictures", group=OUTPUT, is_flag=True, help="Leave out maps and scatter plots.")
@option("--device", group=DATA, default="cpu", show_default=True, help="cpu or cuda.")
@option("--seed", group=ROWS, default=0, show_default=True, help="Seed of the bootstrap.")
@option(
    "--cache",
    group=DATA,
    type=_PATH,
    help="Folder that keeps the output of frozen layers, so that runs which share them are quicker.",
)
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
    samples: tuple[str, ...],
    no_tier1: bool,
    no_pictures: bool,
    device: str,
    seed: int,
    cache: Path | None,
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
    from .progress import show_steps

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
        samples=samples,
        tier1=not no_tier1,
        device=device,
        seed=seed,
        cache=cache,
    )
    with show_steps("evaluating") as progress:
        result = compute(options, progress)
    write_evaluation(result, target, overwrite=overwrite, pictures=not no_pictures)
    if as_json:
        click.echo(json.dumps(result.document, indent=2, allow_nan=False))
        return
    table = rich_table(result)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for line in footnotes(result):
        click.echo(line)
    click.echo(f"result  {target}")


@click.command(
    "hest-bench",
    cls=Command,
    examples=("hest-bench bench-data --run run -o hest", "hest-bench bench-data --embeddings embeddings -o hest"),
)
@click.argument("bench", type=click.Path(file_okay=False, path_type=Path))
@option("--run", group=DATA, type=_PATH, help="Embed the patches by this run, adapted and frozen.")
@option("--embeddings", group=DATA, type=_PATH, metavar="DIR", help="Or use finished embeddings: DIR/TASK/SAMPLE.h5.")
@option("--tasks", group=DATA, default="", metavar="A,B", callback=names_of, help="These tasks only.")
@option("-o", "--out", group=OUTPUT, type=_PATH, required=True, help="Folder for hest-bench.json.")
@option("--overwrite", group=OUTPUT, is_flag=True, help="Replace a finished evaluation.")
@option("--device", group=DATA, default="cpu", show_default=True, help="cpu or cuda.")
def hest_bench(
    bench: Path,
    run: Path | None,
    embeddings: Path | None,
    tasks: tuple[str, ...],
    out: Path,
    overwrite: bool,
    device: str,
) -> None:
    """Run HEST-Bench as published on BENCH, the folder that holds its tasks.

    Its splits, its gene lists, ridge on 256 principal components: figures compare with those that others publish.
    """
    from stamp_deploy.atomic import check_output, staged_directory, write_json_atomic

    from .evaluate.hest_bench import find_tasks, run_embeddings, stored_embeddings
    from .evaluate.hest_bench import hest_bench as compute

    if run is not None and embeddings is None:
        sources = run_embeddings(run, device)
    elif embeddings is not None and run is None:
        sources = {"embeddings": stored_embeddings(embeddings)}
    else:
        raise click.UsageError("name one of --run and --embeddings")
    check_output(out, overwrite=overwrite)
    chosen = find_tasks(bench, tasks)
    document = compute(chosen, sources, say=click.echo)
    with staged_directory(out, overwrite=overwrite) as folder:
        write_json_atomic(folder / "hest-bench.json", document)
    for name, value in document["average"].items():
        click.echo(f"average    {name} {'none' if value is None else format(value, '.4f')} over {len(chosen)} tasks")
    click.echo(f"result  {out}")
