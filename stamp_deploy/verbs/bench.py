"""The verb ``bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..command import Command, option
from .options import PATH, engine_options, json_option, model_options, reading_options, take_infer_options, write_option

MEASURING = "Measuring"


@click.command(
    cls=Command, examples=("bench slide.svs --bundle bundle", "bench slide.svs --bundle bundle --compare openslide")
)
@click.argument("slide", type=PATH)
@model_options
@reading_options("Microns per pixel, where the slide records none.", whole_slide=False)
@engine_options(sizes=False)
@option(
    "--seconds", metavar="SECONDS", default=30.0, show_default=True, group=MEASURING, help="About how long to measure."
)
@option("--max-tiles", default=4096, show_default=True, group=MEASURING, help="Use at most so many tiles of the slide.")
@option(
    "--compare",
    type=click.Choice(["openslide"]),
    group=MEASURING,
    help="Measure reading by OpenSlide and Pillow, too, and print the ratio.",
)
@write_option()
@json_option
def bench(
    slide: Path,
    bundle: Path,
    require_signature: Path | None,
    seconds: float,
    max_tiles: int,
    compare: str | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Throughput of SLIDE by stage, the limiting stage, and the threads and batch to use."""
    from ..checks.bench import run_bench

    options = take_infer_options(rest)
    report = run_bench(
        slide,
        bundle,
        options,
        seconds=seconds,
        max_tiles=max_tiles,
        compare=compare,
        require_signature=require_signature,
    )
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
