"""The verb `train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from stamp_deploy.command import Command, names_of, option
from stamp_deploy.errors import UsageError

TABLE, FIT = "Columns of the table", "Fitting"
SETTINGS, ROWS, OUTPUT = "Settings", "Ablation table", "Output"


@click.command(
    cls=Command,
    examples=(
        "train config.toml -o run",
        "train config.toml --recipe stamp -o run",
        "train config.toml --show",
        "train config.toml -o run --set epochs=20 --set lr=1e-4",
        "train config.toml -o runs --ablations --rows lora,frozen_head",
    ),
)
@click.argument("config", type=click.Path(path_type=Path), required=False)
@option(
    "--recipe", group=SETTINGS, metavar="NAME",
    help="Start from a recipe: aido-tissue, mint, seal, st-align or stamp. CONFIG overrides what it names.",
)  # fmt: skip
@option(
    "--set", "settings", group=SETTINGS, multiple=True, metavar="KEY=VALUE", help="Override a setting; may be repeated."
)
@option("--ablations", group=ROWS, is_flag=True, help="Train the rows of the ablation table, each into OUT/ROW.")
@option(
    "--rows", group=ROWS, metavar="ROW,ROW",
    help="With --ablations: these rows only; recipes stands for every recipe. A wrong name lists them.",
)  # fmt: skip
@option("-o", "--out", group=OUTPUT, type=click.Path(path_type=Path), help="Run folder to be made.")
@option("--overwrite", group=OUTPUT, is_flag=True, help="Replace a finished or unfinished run.")
@option(
    "--show",
    group=SETTINGS,
    is_flag=True,
    help="Print every setting, its value and the reason of its default, and stop.",
)
def train(
    config: Path | None, out: Path | None, recipe: str | None, settings: tuple[str, ...], ablations: bool,
    rows: str | None, overwrite: bool, show: bool,
) -> None:  # fmt: skip
    """Fine-tune a foundation model on pathway scores, as CONFIG (TOML) says.

    Killed at any point, the same command goes on where it was. For several GPUs: accelerate launch -m
    stamp_deploy.cli train CONFIG -o RUN
    """
    from .ablations import controls_left, train_ablations, train_controls
    from .config import TrainConfig, load_config
    from .loop import fit
    from .model import read_info
    from .recipes import read_recipe

    if config is None and recipe is None:
        raise click.UsageError("name a CONFIG, or a recipe: --recipe NAME")
    start = read_recipe(recipe) if recipe is not None else {}
    stated = load_config(config, start) if config is not None else TrainConfig.checked(start)
    chosen = stated.with_(**parse_settings(settings))
    if show:
        click.echo(chosen.to_toml(reasons=True), nl=False)
        return
    if out is None:
        raise click.UsageError("name the folder to be made: -o RUN")
    say = click.echo if int(os.environ.get("RANK", "0")) == 0 else (lambda text: None)  # of several processes, one
    if ablations:
        wanted = tuple(filter(None, (rows or "").split(",")))
        for row, info in train_ablations(chosen, out, wanted, overwrite=overwrite, say=say):
            say(f"{row:<16} {describe(info.metrics)}")
        say(f"table    stamp-deploy evaluate {out / 'lora'} --ablations {out}")
        return
    if rows:
        raise UsageError("--rows goes with --ablations")
    left = controls_left(chosen, out) if not overwrite else ()
    info = read_info(out) if left else fit(chosen, out, overwrite=overwrite)
    say(f"run      {out}: {info.pfm_id}, {len(info.pathway_names)} outputs, {describe(info.metrics)}")
    note = info.cohort.get("note")
    if note:
        say(f"note     {note}")
    if not info.share_merged:
        say(f"licence  {info.licence}: do not publish the merged weights")
    for row, control in train_controls(chosen, out, overwrite=overwrite):
        say(f"control  {row:<11} {describe(control.metrics)}")


def describe(metrics: dict[str, Any]) -> str:
    """A run's numbers in a line."""
    parts = [f"{metrics['epochs']} epochs, {metrics['steps']} steps, {metrics['seconds']:.0f} s"]
    if metrics.get("validation_r") is not None:
        parts.append(f"validation r {metrics['validation_r']:.3f} (epoch {metrics['best_epoch']})")
    if "cosine_to_frozen" in metrics:
        cosine = metrics["cosine_to_frozen"]
        parts.append(f"cosine to the frozen model {cosine:.3f}" + (" (below .8: moved far)" if cosine < 0.8 else ""))
    return ", ".join(parts)


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs; the value is TOML, or else text.

    Raises
    ------
    UsageError
        A setting without ``=``.
    """
    import tomllib

    found: dict[str, Any] = {}
    for item in settings:
        key, separator, text = item.partition("=")
        if not separator:
            raise UsageError(f"--set {item} lacks a value", remedy="write --set KEY=VALUE")
        try:
            found[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = text
    return found


@click.command(
    "train-head",
    cls=Command,
    examples=(
        "train-head results labels.csv -o heads --label msi --classes MSS,MSI",
        "train-head results survival.csv -o heads --time months --event death",
        "train-head results labels.csv -o heads --label msi --model transformer --pathways run",
    ),
)
@click.argument("features", type=click.Path(file_okay=False, path_type=Path))
@click.argument("labels", type=click.Path(dir_okay=False, path_type=Path))
@option(
    "-o", "--out", group=OUTPUT, type=click.Path(path_type=Path), required=True,
    help="Folder that gets heads.json and heads/NAME.safetensors.",
)  # fmt: skip
@option("--name", group=OUTPUT, default="", help="Name of the head; the label column's by default.")
@option("--label", group=TABLE, default="label", show_default=True, help="Column of the class.")
@option(
    "--classes", group=TABLE, default="", metavar="A,B", callback=names_of,
    help="The classes in order; of two, the negative one first.",
)  # fmt: skip
@option("--time", group=TABLE, default="", help="Column of the survival time; with --event.")
@option("--event", group=TABLE, default="", help="Column of the event: 1 happened, 0 censored.")
@option(
    "--slide", "slide_column", group=TABLE, default="", help="Column of the slide's name.  [default: slide_id, slide]"
)
@option(
    "--patient",
    "patient_column",
    group=TABLE,
    default="",
    help="Column of the patient.  [default: patient_id, case_id]",
)
@option(
    "--model", group=FIT, type=click.Choice(["abmil", "transformer", "mean"]), default="abmil", show_default=True,
    help="Gated attention, a transformer over the tiles, or their mean.",
)  # fmt: skip
@option(
    "--pathways", group=FIT, type=click.Path(path_type=Path), metavar="RUN",
    help="The run that made the features: the head uses its pathway scores, too.",
)  # fmt: skip
@option(
    "--pathways-only", group=FIT, is_flag=True, help="With --pathways: use the scores alone, without the embeddings."
)
@option("--folds", group=FIT, default=5, show_default=True, help="Patient folds.")
@option(
    "--inner-folds", group=FIT, default=3, show_default=True,
    help="Folds inside each fold, which set the threshold that it is judged by; 0 is quicker: the other folds set it.",
)  # fmt: skip
@option("--epochs", group=FIT, default=40, show_default=True, help="Largest number of epochs.")
@option("--lr", group=FIT, default=2e-4, show_default=True, help="Learning rate.")
@option("--bins", group=FIT, default=4, show_default=True, help="Time bins of a survival head.")
@option(
    "--max-error",
    group=FIT,
    default=0.1,
    show_default=True,
    help="Abstain on unsure slides, so that at most this share of the other calls is wrong.",
)
@option("--max-tiles", group=FIT, default=4096, show_default=True, help="Most tiles of one slide in a training step.")
@option("--device", group=FIT, default="auto", show_default=True, help="auto, cpu or cuda.")
@option("--seed", group=FIT, default=0, show_default=True, help="Seed of folds, weights and draws.")
def train_head(
    features: Path, labels: Path, out: Path, name: str, label: str, classes: tuple[str, ...], time: str, event: str,
    slide_column: str, patient_column: str, pathways: Path | None, pathways_only: bool, **rest: Any,
) -> None:  # fmt: skip
    """Train a slide-level head on tile embeddings and a table of LABELS (CSV).

    FEATURES is a folder of results (NAME/tiles.h5) or of CLAM or TRIDENT feature files (NAME.h5). With the run's
    folder as -o, `stamp-deploy export` takes the head into the bundle.
    """
    import re

    from .heads.bags import find_bags, read_labels
    from .heads.config import HeadConfig
    from .heads.pathway_readout import read_pathways
    from .heads.train import train_head as fit_head

    if bool(time) != bool(event):
        raise UsageError("survival needs both --time and --event")
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", "survival" if time else label).strip("-") or "head"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"a head cannot be called {name!r}", remedy="use letters, digits, dot, dash and underscore")
    if pathways_only and pathways is None:
        raise UsageError("--pathways-only goes with --pathways RUN")
    inputs = "pathways" if pathways_only else "both" if pathways else "embeddings"
    config = HeadConfig.checked({"name": name, "inputs": inputs, **rest})
    table = read_labels(
        labels, find_bags(features), label=label, time=time, event=event, classes=classes,
        slide_column=slide_column, patient_column=patient_column,
    )  # fmt: skip
    for warning in table.warnings:
        click.echo(f"warning  {warning}", err=True)
    for kind, count in table.counts().items():
        click.echo(f"class    {kind}: {count['slides']} slides of {count['patients']} patients")
    readout = read_pathways(pathways) if pathways is not None else None
    entry = fit_head(table, out, config, say=lambda text: click.echo(text, err=True), readout=readout)
    for line in head_lines(entry):
        click.echo(line)
    click.echo(f"head     {out / 'heads' / name}.safetensors")


def head_lines(entry: dict[str, Any]) -> list[str]:
    """What a person wants to know of a trained head."""
    d = entry["details"]
    lines = [f"slides   {d['slides']} of {d['patients']} patients, {d['folds']} patient folds"]
    for left, why in (("without_label", "no label"), ("without_features", "no features")):
        if d[left]:
            lines.append(f"left out {d[left]} slides: {why}")
    for key, label in (("auroc", "AUROC"), ("auprc", "AUPRC"), ("c_index", "C-index")):
        if key in d:
            interval = d[f"{key}_interval"]
            shown = f" (95 % interval over patients {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            lines.append(f"{label:<8} {d[key]:.3f}{shown}, held out")
    if "calibration" in d:
        c = d["calibration"]
        errors = f"calibration error {c['ece_before']:.3f} to {c['ece_after']:.3f}"
        lines.append(f"calib.   temperature {entry['temperature']:.2f}: {errors}")
        a, band = d["abstention"], entry["abstain"]
        shown = f"{band[0]:.2f} to {band[1]:.2f}" if band else "none"
        missed = "" if a["met"] else f"; the aim of {a['aim']:.0%} was not met"
        lines.append(f"abstain  {shown}: {a['share']:.0%} of slides, then {a['error']:.1%} of calls are wrong{missed}")
    if "judged_by" in d:
        lines.append(f"judged   by thresholds that were set on {d['judged_by']}")
    return lines
