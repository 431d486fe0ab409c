"""The command line: verbs and exit codes, nothing else.

Only click is imported at the top, and each verb imports what it needs when it runs, so that
``--help`` answers at once. The verbs of training, export and batch work are entry points of the group
``stamp_deploy.verbs`` and are loaded when asked for.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import ExitCode, StampError
from .offline import keep_home_clean

if TYPE_CHECKING:
    from .result import Result

GROUP = "stamp_deploy.verbs"
STOPPED = 130
SUMMARIES = {
    "audit": "Show or check the append-only audit log.",
    "batch": "Score folders of slides; resumes by itself.",
    "bench": "Measure throughput by stage and name the limiting one.",
    "build": "Build an engine for this machine from a bundle.",
    "cohort": "Turn spatial transcriptomics samples into a training cohort.",
    "demo": "Make a slide and a cohort, train, export, infer, compare.",
    "evaluate": "Table of a run against its baselines and controls.",
    "export": "Merge a run's adapter and compile it into a bundle.",
    "sign": "Sign a bundle with a private key.",
    "triton": "Lay a bundle out as a model repository of the Triton server.",
    "parity": "Check a bundle's engines on this machine.",
    "train": "Fine-tune a foundation model on pathway scores.",
    "train-head": "Train a slide-level head on tile embeddings.",
    "verify": "Check the hashes of a bundle or a result.",
    "watch": "Score slides as they arrive in a folder.",
}
SECTIONS = {
    "Score slides": ("infer", "batch", "watch", "inspect"),
    "Trust the machine and the model": ("doctor", "verify", "sign", "parity", "build", "bench", "audit"),
    "Train and export": ("demo", "cohort", "train", "train-head", "evaluate", "export", "triton"),
}
EXTRA_OF = {"cohort": "train", "demo": "train,export", "evaluate": "train", "export": "export", "train": "train"}
EXTRA_OF["train-head"] = "train"


class VerbGroup(click.Group):
    """A group whose verbs may live in entry points that are loaded only when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *(point.name for point in entry_points(group=GROUP))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        points = entry_points(group=GROUP, name=cmd_name)
        if not points:
            return None
        command: click.Command = next(iter(points)).load()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        left = self.list_commands(ctx)
        known = {name for names in SECTIONS.values() for name in names}
        for title, names in (*SECTIONS.items(), ("More", tuple(name for name in left if name not in known))):
            rows = [(name, self._summary(name)) for name in names if name in left]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=12)

    def _summary(self, name: str) -> str:
        """One line about a verb; a verb of an entry point is not imported for it."""
        return self.commands[name].get_short_help_str(200) if name in self.commands else SUMMARIES.get(name, "")


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="stamp-deploy")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning", hidden=True)
def cli(log_level: str) -> None:
    """Pathway maps and molecular calls from whole-slide images. For research use only.

    \b
    stamp-deploy inspect SLIDE                          what a slide is and how it would be read
    stamp-deploy infer SLIDE --bundle DIR -o OUT        one slide
    stamp-deploy batch FOLDER --bundle DIR -o OUT       folders of slides
    """
    if log_level != "warning":
        from .log import setup

        setup(log_level)


@cli.command()
@click.argument("slide", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="The model: a bundle folder.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Result folder to be made.")
@click.option("--mpp", type=float, help="Microns per pixel at full resolution; outranks what the slide records.")
@click.option("--batch", type=int, default=32, show_default=True, help="Tiles handed to the engine at once.")
@click.option("--threads", type=int, default=0, help="Decoding and engine threads; 0 is every core.  [default: 0]")
@click.option("--engine", default="auto", show_default=True, help="auto, onnxruntime, openvino, tensorrt, ...")
@click.option("--precision", help="Precision of the engine (fp32, fp16, bf16, int8); the engine's best by default.")
@click.option("--write", "writers", default="json,hdf5,parquet,heatmaps", show_default=True, help="Output formats.")
@click.option("--exact", is_flag=True, help="Decode at full scale, without reduced JPEG scales (slower).")
@click.option("--all-tiles", is_flag=True, help="Score glass too: no tissue mask.")
@click.option("--max-unreadable", type=float, default=0.01, show_default=True, help="Budget of unreadable tiles.")
@click.option("--time-limit", type=float, help="Give a slide up after so many seconds of reading.")
@click.option("--require-signature", type=click.Path(path_type=Path), help="Public key that must have signed.")
@click.option("--overwrite", is_flag=True, help="Replace a finished result.")
@click.option("--json", "as_json", is_flag=True, help="Print the result record as JSON on standard output.")
def infer(
    slide: Path, bundle: Path, out: Path, writers: str, as_json: bool, require_signature: Path | None, **rest: Any
) -> None:
    """Score one SLIDE: pathway maps and slide-level calls.

    The folder OUT appears when everything in it is on the disk, or not at all.
    """
    from .bundle import load_bundle
    from .config import InferOptions
    from .infer import infer_slide

    rest["time_limit_s"] = rest.pop("time_limit")
    names = tuple(name.strip() for name in writers.split(",") if name.strip())
    options = InferOptions(writers=names, **rest)
    loaded = load_bundle(bundle, require_signature=require_signature)
    with _progress(not as_json) as progress:
        result = infer_slide(slide, loaded, out, options, progress=progress)
    if as_json:
        click.echo(json.dumps(result.to_json_dict(), indent=2, allow_nan=False))
    else:
        _print_result(result, out)


@cli.command()
@click.argument("slide", type=click.Path(path_type=Path))
@click.option("--mpp", type=float, help="Microns per pixel at full resolution; outranks what the slide records.")
@click.option("--target-mpp", type=float, default=0.5, show_default=True, help="Resolution the model wants.")
@click.option("--tile-px", type=int, default=224, show_default=True, help="Tile size the model wants.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(slide: Path, mpp: float | None, target_mpp: float, tile_px: int, as_json: bool) -> None:
    """What a SLIDE is, which route and level would be read, and why."""
    from .checks.inspect import describe

    report = describe(slide, mpp=mpp, target_mpp=target_mpp, tile_px=tile_px)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Versions, libraries, engines and GPU of this machine, with a self-test."""
    from .checks.doctor import run_checks

    report = run_checks()
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
    if not report.ok:
        raise SystemExit(ExitCode.BUG)


def _progress(enabled: bool) -> Any:
    """A progress bar on a terminal, nothing otherwise."""
    from contextlib import contextmanager

    @contextmanager
    def bar() -> Any:
        if not (enabled and sys.stderr.isatty()):
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("tiles"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as rich_bar:
            task = rich_bar.add_task("tiles")
            yield lambda done, total: rich_bar.update(task, completed=done, total=total)

    return bar()


def _print_result(result: Result, out: Path) -> None:
    tiles = result.tiles
    stages = ", ".join(
        f"{name.replace('_', ' ')} {seconds:.1f} s"
        for name, seconds in result.timing.items()
        if seconds >= 0.05 and name != "stream"
    )
    click.echo(f"slide   {result.slide.name}: {tiles.ok} tiles scored, {tiles.unreadable} unreadable")
    click.echo(f"read    {result.read_plan['route']}: {result.read_plan['why']}")
    click.echo(f"engine  {result.engine.name} {result.engine.precision} on {result.engine.device}: {result.engine.why}")
    click.echo(f"time    {stages}; limited by {result.limiting}")
    for head in result.heads:
        call = "abstained" if head.abstained else head.call
        spread = f" ({head.interval[0]:.3f} to {head.interval[1]:.3f} over its tiles)" if head.interval else ""
        click.echo(f"call    {head.name}: {f'{call}, ' if call else ''}{head.value_name} {head.value:.3f}{spread}")
    for warning in result.warnings:
        click.echo(f"warning {warning}", err=True)
    click.echo(f"result  {out}")


def main() -> None:
    """Entry point: run the command line and exit with a documented code (docs/exit-codes.md).

    SIGTERM stops like Ctrl-C, so that what was staged is removed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep_home_clean()
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)
    except StampError as error:
        click.echo(f"stamp-deploy: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except BrokenPipeError:
        sys.exit(ExitCode.OK)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "stamp_deploy"):
            raise
        verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        extra = EXTRA_OF.get(verb)
        remedy = f"pip install 'stamp-deploy[{extra}]'" if extra else "install stamp-deploy again"
        click.echo(f"stamp-deploy: `{verb}` needs the Python package {package} - {remedy}", err=True)
        sys.exit(ExitCode.USAGE)
    except BaseException as error:
        if not _was_stopped(error):
            raise
        click.echo("stamp-deploy: stopped; nothing was left half-written", err=True)
        sys.exit(STOPPED)


def _was_stopped(error: BaseException | None) -> bool:
    """Whether Ctrl-C or SIGTERM is behind an error: a library that was being imported may hide it in its own."""
    while error is not None and not isinstance(error, click.Abort | KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    importlib.import_module("stamp_deploy.cli").main()
