"""What a person and a plotting script see of a run: a progress bar on a terminal, and metrics.csv."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any


class Report:
    """A progress bar on standard error where that is a terminal, silence otherwise."""

    def __init__(self, enabled: bool) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._enabled = enabled and sys.stderr.isatty()

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Begin a stage of `total` steps, `done` of them behind us."""
        self.stop()
        if not self._enabled:
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
        if self._bar is not None:
            self._bar.update(self._task, advance=1, note=note)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


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
