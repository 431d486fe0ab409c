"""The verb ``bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("slide", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="The model: a bundle folder.")
@click.option("--mpp", type=float, help="Microns per pixel, where the slide records none.")
@click.option("--engine", default="auto", show_default=True, help="auto, onnxruntime, openvino, ...")
@click.option("--precision", help="Precision of the engine; its best by default.")
@click.option("--exact", is_flag=True, help="No reduced-scale JPEG decode.")
@click.option("--all-tiles", is_flag=True, help="Glass too: no tissue mask.")
@click.option("--write", "writers", default="json,hdf5,parquet,heatmaps", show_default=True, help="Output formats.")
@click.option("--seconds", default=30.0, show_default=True, help="About how long to measure.")
@click.option("--max-tiles", default=4096, show_default=True, help="Tiles of the slide to use.")
@click.option("--compare", type=click.Choice(["openslide"]), help="Also measure the usual way.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(
    slide: Path,
    bundle: Path,
    writers: str,
    seconds: float,
    max_tiles: int,
    compare: str | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Throughput of SLIDE by stage, the limiting stage, and the threads and batch to use."""
    from ..checks.bench import run_bench
    from ..config import InferOptions

    names = tuple(name.strip() for name in writers.split(",") if name.strip())
    options = InferOptions(writers=names, **rest)
    report = run_bench(slide, bundle, options, seconds=seconds, max_tiles=max_tiles, compare=compare)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
