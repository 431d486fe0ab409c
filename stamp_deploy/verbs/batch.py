"""The verbs ``batch`` and ``watch``."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..batch.options import BatchOptions
    from ..batch.run import BatchRun, ExecutorFactory
    from ..batch.watch import Watch


def _common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that both verbs take."""
    path = click.Path(path_type=Path)
    for option in reversed(
        (
            click.option("--bundle", type=path, required=True, help="The model: a bundle folder."),
            click.option("-o", "--out", type=path, required=True, help="Folder of the results."),
            click.option("--mpp", type=float, help="Microns per pixel for slides that record none."),
            click.option("--batch", "batch_tiles", default=32, show_default=True, help="Tiles a batch."),
            click.option("--threads", default=0, help="Threads a worker; 0 is every core it has.  [default: 0]"),
            click.option("--engine", default="auto", show_default=True, help="auto, onnxruntime, openvino, ..."),
            click.option("--precision", help="Precision of the engine; its best by default."),
            click.option("--write", "writers", default="json,hdf5,parquet,heatmaps", show_default=True),
            click.option("--exact", is_flag=True, help="No reduced-scale JPEG decode (slower)."),
            click.option("--all-tiles", is_flag=True, help="Score glass too: no tissue mask."),
            click.option("--max-unreadable", default=0.01, show_default=True, help="Budget of unreadable tiles."),
            click.option("--time-limit", type=float, help="Give a slide up after so many seconds of reading."),
            click.option("--stall", default=300.0, show_default=True, help="Seconds without headway: hung."),
            click.option(
                "--lease",
                default=600.0,
                show_default=True,
                help="Seconds until a lost host's slides are free.",
            ),
            click.option("--devices", default="auto", show_default=True, help="auto, cpu, or GPU numbers as 0,1."),
            click.option("--workers", default=0, help="CPU workers, each on its share of the cores.  [default: 1]"),
            click.option("--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True),
            click.option("--address", help="Ray cluster to connect to (with --executor ray)."),
            click.option("--require-signature", type=path, help="Public key that must have signed the bundle."),
            click.option("--retry-failed", is_flag=True, help="Try failed and quarantined slides again."),
            click.option("--metrics", type=path, help="Prometheus textfile.  [default: OUT/.stamp/stamp.prom]"),
            click.option("--names", is_flag=True, help="Show slide names in JSON lines (tokens otherwise)."),
        )
    ):
        function = option(function)
    return function


@click.command()
@click.argument("slides", nargs=-1, required=True, type=click.Path(path_type=Path))
@_common
@click.option("--shard", default="0/1", show_default=True, help="Work on part i of n only, as 0/8.")
@click.option("--dry-run", is_flag=True, help="Plan, report, and stop.")
@click.option("--no-wait", is_flag=True, help="Do not wait for slides that other processes hold.")
@click.option("--ignore-space", is_flag=True, help="Start although the disk seems too small.")
def batch(slides: tuple[Path, ...], shard: str, dry_run: bool, no_wait: bool, ignore_space: bool, **rest: Any) -> None:
    """Score SLIDES: files, folders, globs, or a CSV manifest (slide, mpp, case_id). Resumes by itself."""
    from dataclasses import replace

    from ..batch.planning.plan import parse_shard
    from ..batch.progress import choose_view
    from ..batch.run import run_batch

    names = rest.pop("names")
    options, factory = _options(**rest)
    options = replace(options, shard=parse_shard(shard), wait_for_others=not no_wait, ignore_space=ignore_space)
    code = run_batch(
        slides,
        options,
        choose_view(names=names),
        dry_run=dry_run,
        executor=factory,
        on_start=_stop_on_signals,
    )
    raise SystemExit(int(code))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_common
@click.option("--settle", default=30.0, show_default=True, help="Seconds a slide must not change to be complete.")
@click.option("--poll", default=5.0, show_default=True, help="Seconds between looks at the folder.")
@click.option("--marker", help="Suffix of marker files, as .done: only marked slides are complete.")
@click.option("--urgent", default="urgent", show_default=True, help="Sub-folder whose slides go first.")
@click.option("--once", is_flag=True, help="Stop when everything that is there now is done.")
def watch(folder: Path, settle: float, poll: float, marker: str | None, urgent: str, once: bool, **rest: Any) -> None:
    """Score slides as they arrive in FOLDER, urgent ones first. Stop it with SIGTERM; it resumes."""
    from ..batch.progress import JsonView
    from ..batch.watch import WatchOptions, run_watch

    names = rest.pop("names")
    options, factory = _options(**rest)
    code = run_watch(
        folder,
        options,
        WatchOptions(settle_s=settle, poll_s=poll, marker=marker, urgent=urgent),
        JsonView(names=names),
        executor=factory,
        once=once,
        on_start=_stop_on_signals,
    )
    raise SystemExit(int(code))


def _options(
    *,
    bundle: Path,
    out: Path,
    mpp: float | None,
    batch_tiles: int,
    writers: str,
    time_limit: float | None,
    stall: float,
    lease: float,
    devices: str,
    workers: int,
    executor: str,
    address: str | None,
    require_signature: Path | None,
    retry_failed: bool,
    metrics: Path | None,
    **infer: Any,
) -> tuple[BatchOptions, ExecutorFactory]:
    """Options and executor from what the command line said."""
    from ..batch.options import BatchOptions
    from ..batch.run import local_executor
    from ..config import InferOptions

    names = tuple(name.strip() for name in writers.split(",") if name.strip())
    options = BatchOptions(
        bundle=bundle,
        out=out,
        infer=InferOptions(mpp=mpp, batch=batch_tiles, writers=names, time_limit_s=time_limit, **infer),
        require_signature=require_signature,
        devices=devices,
        workers=workers,
        stall_s=stall,
        lease_s=lease,
        retry_failed=retry_failed,
        metrics=metrics,
    )
    if executor == "local":
        return options, local_executor
    from ..batch.workers.ray import ray_executor

    return options, lambda chosen: ray_executor(chosen, address=address)


def _stop_on_signals(run: BatchRun | Watch) -> None:
    """SIGTERM (Slurm, Kubernetes, systemd) and Ctrl-C: release claims, keep what is finished, stop."""

    def stop(number: int, frame: object) -> None:
        run.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
