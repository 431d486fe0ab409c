"""How a long job shows that it moves: a bar on a terminal or in a notebook, a line per minute anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TextIO

Advance = Callable[[int, int], None]
"""Called with (done, total)."""
LINE_EVERY_S = 60.0


@contextmanager
def show_progress(what: str, *, enabled: bool = True, stream: TextIO | None = None) -> Iterator[Advance | None]:
    """Yield a function to call with (done, total), or None where nothing is to be shown.

    Parameters
    ----------
    what : str
        What is counted, in the plural: "tiles".
    enabled : bool
        Show anything at all.
    stream : text file, optional
        Where to; standard error by default.
    """
    if not enabled:
        yield None
        return
    target = stream or sys.stderr
    if target.isatty():
        with _bar(what, target) as advance:
            yield advance
    elif stream is None and _in_notebook() and find_spec("tqdm"):
        with _notebook_bar(what) as advance:
            yield advance
    else:
        yield Lines(what, target)


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this code; other libraries import IPython and ipykernel, too."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


@contextmanager
def _bar(what: str, stream: TextIO) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _notebook_bar(what: str) -> Iterator[Advance]:
    """tqdm's bar: a widget where ipywidgets are installed, text otherwise."""
    if find_spec("ipywidgets"):
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm

    with tqdm(unit=f" {what}", leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


class Lines:
    """A line per minute: how many are done, and how long the rest may take at the pace so far.

    Parameters
    ----------
    clock : callable
        Seconds; replaced in tests.
    """

    def __init__(self, what: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._stream, self._clock = what, stream, clock
        self._started = self._said = clock()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if self._first is None:  # a job that is gone on with has some behind it already
            self._first = max(0, done - 1)
        if now - self._said < LINE_EVERY_S or done <= self._first:
            return
        self._said = now
        left = (now - self._started) / (done - self._first) * (total - done)
        print(f"{self._what}: {done:,} of {total:,}, about {duration(left)} left", file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
