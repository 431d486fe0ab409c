"""The verbs `evaluate-head` and `compare-encoders`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stamp_deploy.command import Command, names_of, option

ENCODERS = "What is compared"
TABLE, JUDGING, FIT, OUTPUT = "Columns of the table", "Judging", "Fitting", "Output"
_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(
    "evaluate-head",
    cls=Command,
    examples=(
        "evaluate-head run results-of-site-b labels.csv -o evaluation --label msi",
        "evaluate-head run results-b survival.csv -o evaluation --time months --event died --covariates age,stage",
    ),
)
@click.argument("heads", type=_FOLDER)
@click.argument("features", type=_FOLDER)
@click.argument("labels", type=click.Path(dir_okay=False, path_type=Path))
@option(
    "-o", "--out", group=OUTPUT, type=_PATH, required=True, help="Folder for the page, the figures and the numbers."
)
@option("--overwrite", group=OUTPUT, is_flag=True, help="Replace a finished evaluation.")
@option("--head", "name", group=JUDGING, default="", help="Which head, where HEADS holds several.")
@option("--label", group=TABLE, default="label", show_default=True, help="Column of the class.")
@option("--time", group=TABLE, default="", help="Column of the survival time; with --event.")
@option("--event", group=TABLE, default="", help="Column of the event: 1 happened, 0 censored.")
@option(
    "--covariates", group=TABLE, default="", metavar="A,B", callback=names_of,
    help="Numeric columns that a Cox model adjusts for.",
)  # fmt: skip
@option("--slide", "slide_column", group=TABLE, default="", help="Column of the slide's name.")
@option("--patient", "patient_column", group=TABLE, default="", help="Column of the patient.")
@option(
    "--sensitivity", "sensitivities", group=JUDGING, multiple=True, type=click.FloatRange(0, 1, min_open=True),
    help="Sensitivity of an operating point; its threshold is set on the training data. May be repeated.  "
    "[default: .9, .95, .98]",
)  # fmt: skip
@option("--per-patient", group=JUDGING, is_flag=True, help="Judge patients: the mean of each patient's slides.")
@option("--draws", group=JUDGING, default=1000, show_default=True, type=click.IntRange(1), help="Bootstrap samples.")
@option("--seed", group=JUDGING, default=0, show_default=True, help="Seed of the bootstrap.")
def evaluate_head(
    heads: Path, features: Path, labels: Path, out: Path, overwrite: bool, name: str, label: str, time: str,
    event: str, covariates: tuple[str, ...], slide_column: str, patient_column: str, sensitivities: tuple[float, ...],
    per_patient: bool, draws: int, seed: int,
) -> None:  # fmt: skip
    """Judge a trained head on FEATURES and LABELS of patients that it never saw.

    HEADS is the folder that `train-head` wrote. Its thresholds stay as they are; nothing is fitted here.
    """
    from stamp_deploy.atomic import check_output
    from stamp_deploy.errors import UsageError

    from .heads.bags import find_bags, read_labels
    from .heads.evaluation.evaluate import Options, evaluate_head, read_head
    from .heads.evaluation.operating import SENSITIVITIES
    from .heads.evaluation.page import write_head_evaluation

    check_output(out, overwrite=overwrite)
    head = read_head(heads, name)
    survival = head.entry["kind"] == "survival"
    if survival and not (time and event):
        raise UsageError(f"the head {head.entry['name']} is of survival", remedy="name --time and --event")
    if not survival and (time or event or covariates):
        raise UsageError(
            f"the head {head.entry['name']} tells classes apart", remedy="leave out --time, --event and --covariates"
        )
    table = read_labels(
        labels, find_bags(features), label=label, time=time, event=event,
        classes=() if survival else head.entry["classes"], slide_column=slide_column, patient_column=patient_column,
        covariates=covariates,
    )  # fmt: skip
    for warning in table.warnings:
        click.echo(f"warning  {warning}", err=True)
    options = Options(tuple(sorted(sensitivities)) or SENSITIVITIES, draws, seed, per_patient)
    document = evaluate_head(head, table, options, say=lambda text: click.echo(text, err=True))
    write_head_evaluation(document, out, overwrite=overwrite)
    for line in evaluation_lines(document):
        click.echo(line)
    click.echo(f"page     {out / 'evaluation.html'}")


def evaluation_lines(document: dict[str, Any]) -> list[str]:
    """What a person wants to know first."""
    from .heads.evaluation.page import LABELS, interval, number, share

    cohort = document["cohort"]
    lines = [f"cohort   {cohort['slides']} slides of {cohort['patients']} patients"]
    for key in ("auroc", "auprc", "c_index"):
        if key in document:
            found = document[key]
            drawn = f"95 % over patients {interval(found['bootstrap'])}"
            delong = f", DeLong {interval(found['delong'])}" if "delong" in found else ""
            trained = f"; held out in training {number(document['training'][key])}"
            lines.append(f"{LABELS[key]:<8} {number(found['value'])} ({drawn}{delong}){trained}")
    for point in document.get("operating_points", ()):
        at = point["external"]
        lines.append(
            f"triage   locked at {point['wanted_sensitivity']:.0%}: sensitivity {share(at['sensitivity'])}, NPV "
            f"{share(at['npv'])}, tests saved {share(at['ruled_out'])}"
        )
    if "calibration" in document:
        c = document["calibration"]
        shown = {"slope": "slope", "intercept": "intercept_at_slope_1", "Brier": "brier", "ECE": "ece"}
        lines.append("calib.   " + ", ".join(f"{name} {number(c[key])}" for name, key in shown.items()))
    return [*lines, *(f"note     {note}" for note in (*document["notes"], *document.get("not_run", ())))]


@click.command(
    "compare-encoders",
    cls=Command,
    examples=(
        "compare-encoders labels.csv --encoder aligned=results-aligned --encoder frozen=results-frozen -o comparison",
    ),
)
@click.argument("labels", type=click.Path(dir_okay=False, path_type=Path))
@option(
    "--encoder", "encoders", group=ENCODERS, multiple=True, metavar="NAME=FEATURES",
    help="Name of an encoder and the folder of its features; give two or more. The others are compared with the last.",
)  # fmt: skip
@option("-o", "--out", group=OUTPUT, type=_PATH, required=True, help="Folder for the page and the numbers.")
@option("--overwrite", group=OUTPUT, is_flag=True, help="Replace a finished comparison.")
@option("--label", group=TABLE, default="label", show_default=True, help="Column of the class.")
@option(
    "--classes", group=TABLE, default="", metavar="A,B", callback=names_of,
    help="The classes in order; of two, the negative one first.",
)  # fmt: skip
@option("--time", group=TABLE, default="", help="Column of the survival time; with --event.")
@option("--event", group=TABLE, default="", help="Column of the event: 1 happened, 0 censored.")
@option("--slide", "slide_column", group=TABLE, default="", help="Column of the slide's name.")
@option("--patient", "patient_column", group=TABLE, default="", help="Column of the patient.")
@option(
    "--model", group=FIT, type=click.Choice(["abmil", "transformer", "mean"]), default="abmil", show_default=True,
    help="Kind of the head.",
)  # fmt: skip
@option(
    "--seeds",
    group=FIT,
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="Runs to average, each with its own folds and start weights.",
)
@option("--folds", group=FIT, default=5, show_default=True, help="Patient folds.")
@option("--epochs", group=FIT, default=40, show_default=True, help="Largest number of epochs.")
@option("--lr", group=FIT, default=2e-4, show_default=True, help="Learning rate.")
@option("--bins", group=FIT, default=4, show_default=True, help="Time bins of a survival head.")
@option("--device", group=FIT, default="auto", show_default=True, help="auto, cpu or cuda.")
@option("--draws", group=JUDGING, default=1000, show_default=True, help="Bootstrap samples.")
def compare_encoders(
    labels: Path, encoders: tuple[str, ...], out: Path, overwrite: bool, label: str, classes: tuple[str, ...],
    time: str,
    event: str, slide_column: str, patient_column: str, model: str, seeds: int, folds: int, epochs: int, lr: float,
    bins: int, device: str, draws: int,
) -> None:  # fmt: skip
    """Train the same heads on features of several encoders, with the same patient folds, and compare them in pairs.

    Does the aligned encoder give better heads than the frozen one? LABELS is the table of `train-head`.
    """
    from stamp_deploy.atomic import check_output
    from stamp_deploy.errors import UsageError

    from .heads.bags import find_bags, read_labels
    from .heads.config import HeadConfig
    from .heads.evaluation.encoders import compare_encoders
    from .heads.evaluation.page import LABELS, interval, number, write_comparison

    folders: dict[str, Path] = {}
    for item in encoders:
        name, equals, folder = item.partition("=")
        if not (name and equals and folder) or name in folders:
            raise click.UsageError(f"--encoder {item}: write NAME=FEATURES, each name once")
        folders[name] = Path(folder)
    if len(folders) < 2:
        raise click.UsageError("name two encoders or more: --encoder NAME=FEATURES")
    if bool(time) != bool(event):
        raise UsageError("survival needs both --time and --event")
    check_output(out, overwrite=overwrite)
    config = HeadConfig.checked({
        "model": model, "folds": folds, "epochs": epochs, "lr": lr, "bins": bins, "device": device, "draws": draws,
    })  # fmt: skip
    tables = {
        name: read_labels(
            labels, find_bags(folder), label=label, time=time, event=event,
            classes=classes, slide_column=slide_column,
            patient_column=patient_column,
        )
        for name, folder in folders.items()
    }  # fmt: skip
    document = compare_encoders(tables, config, seeds, say=lambda text: click.echo(text, err=True))
    write_comparison(document, out, overwrite=overwrite)
    for kind in ("encoders", "differences"):
        for name, measures in document[kind].items():
            shown = f"{name} minus {document['reference']}" if kind == "differences" else name
            for key, found in measures.items():
                word = f": {found['word']}" if "word" in found else ""
                value, drawn = number(found["value"]), interval(found["bootstrap"])
                click.echo(f"{LABELS[key]:<8} {shown}: {value} (95 % over patients {drawn}){word}")
    click.echo(f"page     {out / 'comparison.html'}")
