"""The command line: the group of verbs and the exit codes, nothing else.

Only click is imported at the top, so that ``--help`` answers at once. The verbs are entry points of the group
``stamp_deploy.verbs``: each is loaded when it is asked for, and imports what it needs when it runs.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from importlib.metadata import entry_points

import click

from . import __version__
from .errors import ExitCode, StampError
from .system.offline import keep_home_clean

GROUP = "stamp_deploy.verbs"
ISOLATED = ("infer", "inspect", "view")
"""Verbs that read a slide themselves."""
SUMMARIES = {
    "audit": "Show or check the append-only audit log.",
    "batch": "Score folders of slides; resumes by itself.",
    "bench": "Measure throughput by stage and name the limiting one.",
    "build": "Build an engine for this machine from a bundle.",
    "compare": "Agreement of two results of one slide: another bundle, engine or scan.",
    "cohort": "Turn spatial transcriptomics samples into a training cohort.",
    "dicomweb": "Slides out of an image archive, results into it, by DICOMweb.",
    "dimse": "The same by DIMSE (C-FIND, C-GET, C-STORE), and a receiver of slides.",
    "doctor": "Versions, libraries, engines and GPU of this machine, with a self-test.",
    "demo": "Make a slide and a cohort, train, export, infer, compare.",
    "compare-encoders": "Compare encoders by the slide-level heads that their features give.",
    "evaluate": "Table of a run against its baselines and controls.",
    "evaluate-head": "Judge a slide-level head on another cohort.",
    "export": "Merge a run's adapter and compile it into a bundle.",
    "fhir": "Write a result as HL7 FHIR: a preliminary DiagnosticReport.",
    "formats": "List the output formats: files, what opens them, the extra that they need.",
    "infer": "Score one slide: pathway maps and slide-level calls.",
    "inspect": "What a slide is, which route and level would be read, and why.",
    "models": "List the foundation models that can be adapted: licence, size, tile.",
    "render": "Write further formats of a finished result, without scoring again.",
    "sign": "Sign a bundle with a private key.",
    "triton": "Lay a bundle out as a model repository of the Triton server.",
    "parity": "Check a bundle's engines on this machine.",
    "summary": "Put all results of a batch side by side: tables, page, heat map.",
    "train": "Fine-tune a foundation model on pathway scores.",
    "hest-bench": "HEST-Bench as published, by a run or by embeddings.",
    "train-head": "Train a slide-level head on tile embeddings.",
    "verify": "Check the hashes of a bundle or a result.",
    "view": "Look at results in a browser: deep zoom, maps, areas, annotations.",
    "watch": "Score slides as they arrive in a folder.",
}
SECTIONS = {
    "Score slides": ("infer", "batch", "watch", "view", "render", "summary", "compare", "inspect", "formats"),
    "Beside an archive": ("dicomweb", "dimse", "fhir"),
    "Trust the machine and the model": ("doctor", "verify", "sign", "parity", "build", "bench", "audit"),
    "Train and export": (
        "demo",
        "models",
        "cohort",
        "train",
        "evaluate",
        "train-head",
        "evaluate-head",
        "compare-encoders",
        "hest-bench",
        "export",
        "triton",
    ),
}
EXTRA_OF = {"cohort": "train", "demo": "train,export", "evaluate": "train", "export": "export", "train": "train"}
EXTRA_OF |= {name: "train" for name in ("train-head", "evaluate-head", "compare-encoders", "hest-bench")}
EXTRA_OF |= {"dicomweb": "dicomweb", "dimse": "dimse", "fhir": "fhir"}


class VerbGroup(click.Group):
    """A group whose verbs are entry points, loaded when they are asked for."""

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
        """One line about a verb, which is not imported for it."""
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
        from .system.log import setup

        setup(log_level)


def main() -> None:
    """Entry point: run the command line and exit with a documented code (docs/exit-codes.md).

    A verb that reads a slide runs in a child process (isolation.py), so that a decoder's crash ends in an error that
    names the slide. A program that calls this with threads or streams of its own gets the verb in its own process.
    """
    from .system.isolation import can_isolate, run_isolated
    from .system.streams import guard_streams

    guard_streams()
    keep_home_clean()
    if _verb() not in ISOLATED or not can_isolate():
        sys.exit(run())
    try:
        code = run_isolated(lambda: run(alone=True))
    except StampError as error:
        click.echo(f"stamp-deploy: {error}", err=True)
        code = int(error.exit_code)
    sys.exit(code)


def run(*, alone: bool = False) -> int:
    """The command in this process, its errors told in a line; returns the exit code.

    Parameters
    ----------
    alone : bool
        The process does nothing else: what its libraries write can be thrown away.
    """
    from .system.isolation import install_stop_handlers, stop_asked
    from .system.quiet import guard_process

    install_stop_handlers()
    if alone:
        guard_process()
    try:
        code = cli.main(standalone_mode=False)
        return code if isinstance(code, int) else int(ExitCode.OK)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(ExitCode.OK if stop.code is None else ExitCode.BUG)
    except StampError as error:
        if stop_asked():
            return _stopped()
        click.echo(f"stamp-deploy: {error}", err=True)
        return int(error.exit_code)
    except click.ClickException as error:
        told = io.StringIO()
        error.show(file=told)
        click.echo(_without_folders(told.getvalue()), err=True, nl=False)
        return int(ExitCode.USAGE)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "stamp_deploy"):
            return _bug(error)
        verb = _verb()
        extra = EXTRA_OF.get(verb)
        remedy = f"pip install 'stamp-deploy[{extra}]'" if extra else "install stamp-deploy again"
        click.echo(f"stamp-deploy: `{verb}` needs the Python package {package} - {remedy}", err=True)
        return int(ExitCode.USAGE)
    except BaseException as error:
        return _stopped() if stop_asked() or _was_stopped(error) else _bug(error)


def _verb() -> str:
    """The verb on the command line; "" where there is none."""
    words = iter(sys.argv[1:])
    for word in words:
        if word == "--log-level":
            next(words, None)
        elif not word.startswith("-"):
            return word
    return ""


def _stopped() -> int:
    """Say that a signal ended the command. What it interrupted may have failed in another way: ctypes hides it."""
    from .system.isolation import STOPPED

    click.echo("stamp-deploy: stopped; nothing was left half-written", err=True)
    return STOPPED


def _bug(error: BaseException) -> int:
    """Tell an error that nobody foresaw by where it happened; what it says may quote a slide's file."""
    from .system.quiet import traceback_text

    click.echo(traceback_text(error), err=True, nl=False)
    click.echo("stamp-deploy: this is a fault of stamp-deploy: please report the lines above", err=True)
    return int(ExitCode.BUG)


def _without_folders(text: str) -> str:
    """A message of click with file names in place of paths: folders can identify patients."""
    for word in sys.argv[1:]:
        path = word.partition("=")[2] if word.startswith("-") and "=" in word else word
        if os.sep in path:
            text = text.replace(path, os.path.basename(path.rstrip(os.sep)))
    return text


def _was_stopped(error: BaseException | None) -> bool:
    """Whether Ctrl-C or SIGTERM is behind an error: a library that was being imported may hide it in its own."""
    while error is not None and not isinstance(error, click.Abort | KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    importlib.import_module("stamp_deploy.cli").main()
