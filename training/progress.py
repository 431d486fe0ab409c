"""What is seen of a run: a bar on a terminal, lines elsewhere, metrics.csv, and event files for TensorBoard."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stamp_deploy.system.progress import Lines


class Report:
    """A progress bar on standard error where that is a terminal, otherwise a line per minute."""

    def __init__(self, enabled: bool) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._enabled = enabled
        self._lines: Lines | None = None
        self._done = self._total = 0

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Begin a stage of `total` steps, `done` of them behind us."""
        self.stop()
        if not self._enabled:
            return
        if not sys.stderr.isatty():
            self._lines = Lines(f"{what}, steps", sys.stderr)
            self._done, self._total = done, total
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._bar.start()
        self._task = self._bar.add_task(what, total=total, completed=done, note="")

    def advance(self, note: str = "") -> None:
        """One step further."""
        if self._lines is not None:
            self._done += 1
            self._lines(self._done, self._total)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, note=note)

    def stop(self) -> None:
        """Take the bar away."""
        self._lines = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def show_steps(title: str, *, enabled: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Show on standard error what is being computed: a status on a terminal, otherwise a line when a step begins.

    Parameters
    ----------
    title : str
        Of the whole work.
    enabled : bool
        False shows nothing.

    Yields
    ------
    callable
        To be called with (step, tiles done, tiles in all).
    """
    if not enabled:
        yield lambda step, done, of: None
        return
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(title) as status:
            yield lambda step, done, of: status.update(f"{step}: {done} of {of} tiles")
        return
    begun: set[str] = set()

    def say(step: str, done: int, of: int) -> None:
        if step not in begun:
            begun.add(step)
            print(f"{title}: {step}, {of} tiles", file=sys.stderr, flush=True)

    yield say


class Events:
    """The rows of metrics.csv as event files, for ``tensorboard --logdir RUN``; nothing where it is not installed.

    A run that is gone on with writes a further file; TensorBoard reads them as one.
    """

    def __init__(self, folder: Path, *, enabled: bool = True) -> None:
        self._folder = folder
        self._enabled = enabled and find_spec("tensorboard") is not None
        self._writer: Any = None

    def add(self, row: dict[str, Any]) -> None:
        """Write the numbers of one epoch."""
        if not self._enabled:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # An epoch that was begun before the run was killed is written again: older events of it are dropped.
            self._writer = SummaryWriter(str(self._folder), purge_step=int(row["epoch"]))
        for name, value in row.items():
            if name != "epoch" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of the same keys, replacing the file at once; numbers keep 6 digits."""
    if not rows:
        return
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(k for row in rows for k in row)), restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    partial.replace(path)
