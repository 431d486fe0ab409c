"""The verbs of one slide: infer, inspect; and doctor, which looks at the machine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..command import Command, option
from ..errors import ExitCode
from .options import (
    OUTPUT,
    PATH,
    READING,
    engine_options,
    json_option,
    model_options,
    out_option,
    overwrite_option,
    reading_options,
    strict_option,
    take_infer_options,
    write_option,
)

if TYPE_CHECKING:
    from ..checks.inspect import Inspection
    from ..checks.inspect_bundle import BundleInspection
    from ..result import Result

OUTRANKS = "Microns per pixel at full resolution; outranks what the slide records."


@click.command(
    cls=Command,
    examples=(
        "infer slide.svs --bundle bundle -o result",
        "infer slide.svs --bundle bundle -o result --write json,hdf5,report,geojson",
        "infer slide.tiff --bundle bundle -o result --mpp 0.25 --engine openvino",
    ),
)
@click.argument("slide", type=PATH)
@model_options
@strict_option
@reading_options(OUTRANKS)
@engine_options()
@out_option("Result folder to be made.")
@write_option()
@overwrite_option
@option("--json", "as_json", is_flag=True, group=OUTPUT, help="Print the result record as JSON on standard output.")
def infer(slide: Path, bundle: Path, out: Path, as_json: bool, require_signature: Path | None, **rest: Any) -> None:
    """Score one SLIDE: pathway maps and slide-level calls.

    The folder OUT appears when everything in it is on the disk, or not at all. Without a terminal a line per minute
    says how far it is.
    """
    clock = time.perf_counter()
    from ..bundle import load_bundle
    from ..infer import infer_slide
    from ..system.progress import show_progress

    options = take_infer_options(rest)
    loaded = load_bundle(bundle, require_signature=require_signature, adapter=options.adapter)
    with show_progress("tiles", enabled=not as_json) as progress:
        start_up_s = time.perf_counter() - clock
        result = infer_slide(slide, loaded, out, options, progress=progress, start_up_s=start_up_s)
    if as_json:
        click.echo(json.dumps(result.to_json_dict(), indent=2, allow_nan=False))
    else:
        print_result(result, out)


@click.command(
    cls=Command,
    examples=("inspect slide.svs", "inspect slide.ndpi --target-mpp 1.0 --tile-px 256 --json", "inspect bundle"),
)
@click.argument("slide", type=PATH)
@option("--mpp", type=float, group=READING, help=OUTRANKS)
@option("--target-mpp", default=0.5, show_default=True, group=READING, help="Resolution the model wants.")
@option("--tile-px", default=224, show_default=True, group=READING, help="Tile size the model wants.")
@json_option
def inspect(slide: Path, mpp: float | None, target_mpp: float, tile_px: int, as_json: bool) -> None:
    """What a SLIDE is, which route and level would be read, and why; or what a bundle is and what it does not know."""
    report: Inspection | BundleInspection
    if (slide / "bundle.json").is_file():
        from ..checks.inspect_bundle import describe_bundle

        report = describe_bundle(slide)
    else:
        from ..checks.inspect import describe

        report = describe(slide, mpp=mpp, target_mpp=target_mpp, tile_px=tile_px)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())


@click.command(cls=Command, examples=("doctor", "doctor --json"))
@json_option
def doctor(as_json: bool) -> None:
    """Versions, libraries, engines and GPU of this machine, with a self-test."""
    from ..checks.doctor import run_checks

    report = run_checks()
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
    if not report.ok:
        raise SystemExit(ExitCode.BUG)


def print_result(result: Result, out: Path) -> None:
    """What a person wants to know of a finished slide."""
    from ..heads import value_text

    tiles = result.tiles
    stages = ", ".join(
        f"{name.replace('_', ' ')} {seconds:.1f} s"
        for name, seconds in result.timing.items()
        if seconds >= 0.05 and name != "stream"
    )
    click.echo(f"slide   {result.slide.name}: {tiles.ok} tiles scored, {tiles.unreadable} unreadable")
    click.echo(f"read    {result.read_plan['route']}: {result.read_plan['why']}")
    click.echo(f"engine  {result.engine.name} {result.engine.precision} on {result.engine.device}: {result.engine.why}")
    click.echo(f"time    {stages}; limited by {result.limiting.replace('_', ' ')}")
    if result.trust is not None:
        far = "" if result.trust.distance is None else f", {result.trust.judged_tiles} tiles measured"
        click.echo(f"trust   {result.trust.verdict}{far}")
    for head in result.heads:
        call = f"abstained ({head.cause})" if head.abstained else head.call
        value, *ends = (value_text(head.kind, number, 3) for number in (head.value, *(head.interval or ())))
        spread = f" ({ends[0]} to {ends[1]} over its tiles)" if ends else ""
        click.echo(f"call    {head.name}: {f'{call}, ' if call else ''}{head.value_name} {value}{spread}")
    for warning in result.warnings:
        click.echo(f"warning {warning}", err=True)
    click.echo(f"result  {out}")
