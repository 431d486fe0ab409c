"""The verbs ``batch`` and ``watch``."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..command import Command, Decorate, option, together
from ..config import DEFAULT_WRITERS
from .options import (
    OUTPUT,
    PATH,
    engine_options,
    model_options,
    out_option,
    reading_options,
    strict_option,
    take_infer_options,
    write_option,
)

if TYPE_CHECKING:
    from ..batch.options import BatchOptions
    from ..batch.run import BatchRun, ExecutorFactory
    from ..batch.watch import Watch
    from ..errors import ExitCode


SCHEDULING, ARRIVAL = "Workers and hosts", "Arrival of slides"


def scoring_options(writers: tuple[str, ...] = DEFAULT_WRITERS) -> Decorate:
    """Options of every verb that scores many slides; `writers` are its formats by default."""
    return together(
        model_options,
        strict_option,
        reading_options("Microns per pixel for slides that record none."),
        engine_options(),
        option("--devices", default="auto", show_default=True, group=SCHEDULING,
               help="auto, cpu, or GPU numbers as 0,1."),
        option("--workers", default=0, group=SCHEDULING, show_default="one",
               help="Number of CPU workers; each gets its share of the cores."),
        option("--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True, group=SCHEDULING,
               help="Where workers run: on this host, or on a Ray cluster."),
        option("--address", group=SCHEDULING, help="Ray cluster to connect to (with --executor ray)."),
        option("--stall", "stall_s", metavar="SECONDS", default=300.0, show_default=True, group=SCHEDULING,
               help="A slide without progress for so long counts as hung; its worker is started again."),
        option("--lease", "lease_s", metavar="SECONDS", default=600.0, show_default=True, group=SCHEDULING,
               help="A host that has not reported for so long is lost; others take over its slides."),
        option("--retry-failed", is_flag=True, group=SCHEDULING,
               help="Try slides again that failed or were quarantined: they crashed or hung a worker twice."),
        out_option("Folder of the results."),
        write_option(writers),
        option("--metrics", type=PATH, group=OUTPUT, show_default="OUT/.stamp/stamp.prom",
               help="File for Prometheus metrics (textfile)."),
        option("--names", is_flag=True, group=OUTPUT,
               help="Show file names of slides in the JSON lines; without it a token stands for each."),
    )  # fmt: skip


@click.command(
    cls=Command,
    examples=(
        "batch slides/ --bundle bundle -o results",
        "batch 'slides/*.svs' --bundle bundle -o results --dry-run",
        "batch manifest.csv --bundle bundle -o results --shard 0/8 --devices 0,1",
    ),
)
@click.argument("slides", nargs=-1, required=True, type=PATH)
@scoring_options()
@option(
    "--shard",
    default="0/1",
    show_default=True,
    group=SCHEDULING,
    help="Work on one part of the slides, as 0/8: the first of eight.",
)
@option("--no-wait", is_flag=True, group=SCHEDULING, help="Do not wait for slides that other processes hold.")
@option("--ignore-space", is_flag=True, group=OUTPUT, help="Start although the disk seems too small.")
@option("--dry-run", is_flag=True, group=SCHEDULING, help="Check slides, disk and model, print the plan, and stop.")
def batch(slides: tuple[Path, ...], shard: str, dry_run: bool, no_wait: bool, ignore_space: bool, **rest: Any) -> None:
    """Score SLIDES: files, folders, globs, or a CSV manifest (slide, mpp, case_id). Resumes by itself."""
    from dataclasses import replace

    from ..batch.planning.plan import parse_shard
    from ..batch.progress import choose_view
    from ..batch.run import run_batch

    names = rest.pop("names")
    options, factory = take_batch_options(**rest)
    options = replace(options, shard=parse_shard(shard), wait_for_others=not no_wait, ignore_space=ignore_space)
    code = run_batch(
        slides,
        options,
        choose_view(names=names),
        dry_run=dry_run,
        executor=factory,
        on_start=stop_on_signals,
    )
    exit_with(code)


@click.command(
    cls=Command,
    examples=(
        "watch incoming/ --bundle bundle -o results",
        "watch incoming/ --bundle bundle -o results --marker .done --once",
    ),
)
@click.argument("folder", type=PATH)
@scoring_options()
@option(
    "--settle",
    metavar="SECONDS",
    default=30.0,
    show_default=True,
    group=ARRIVAL,
    help="A file is complete when it has not changed for so long.",
)
@option(
    "--poll", metavar="SECONDS", default=5.0, show_default=True, group=ARRIVAL, help="Time between looks at the folder."
)
@option("--marker", group=ARRIVAL, help="Suffix of marker files, as .done: only marked slides are complete.")
@option("--urgent", default="urgent", show_default=True, group=ARRIVAL, help="Sub-folder whose slides go first.")
@option("--once", is_flag=True, group=ARRIVAL, help="Stop when everything that is there now is done.")
def watch(folder: Path, settle: float, poll: float, marker: str | None, urgent: str, once: bool, **rest: Any) -> None:
    """Score slides as they arrive in FOLDER, urgent ones first. Stop it with SIGTERM; it resumes."""
    from ..batch.arrivals import WatchOptions
    from ..batch.progress import JsonView
    from ..batch.watch import folder_arrivals, run_watch

    names = rest.pop("names")
    options, factory = take_batch_options(**rest)
    code = run_watch(
        folder_arrivals(folder, options, WatchOptions(settle_s=settle, marker=marker, urgent=urgent)),
        options,
        poll,
        JsonView(names=names),
        executor=factory,
        once=once,
        on_start=stop_on_signals,
    )
    exit_with(code)


def take_batch_options(*, executor: str, address: str | None, **given: Any) -> tuple[BatchOptions, ExecutorFactory]:
    """Options and executor from what the command line said."""
    from ..batch.options import BatchOptions
    from ..batch.run import local_executor

    infer = take_infer_options(given)
    options = BatchOptions(infer=infer, **given)
    if executor == "local":
        return options, local_executor
    from ..batch.workers.ray import ray_executor

    return options, lambda chosen: ray_executor(chosen, address=address)


def stop_on_signals(run: BatchRun | Watch) -> None:
    """SIGTERM (Slurm, Kubernetes, systemd), SIGHUP and Ctrl-C: release claims, keep what is finished, stop."""
    call_on_signals(run.stop)


def call_on_signals(stop: Callable[[], object]) -> None:
    """Call `stop` on SIGTERM, SIGHUP and Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and shells that put a job into the background
            signal.signal(number, lambda *_: stop())


def exit_with(code: ExitCode) -> NoReturn:
    """End with a code."""
    raise SystemExit(int(code))
