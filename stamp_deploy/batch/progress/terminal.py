"""The course of a batch on a terminal: a progress bar, and a table at the end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from rich.text import Text

from ...system.names import shown_name
from ..planning.plan import Finding, Plan, in_bytes
from ..states import FLAGGED, AttemptState, PlanState
from ..workers.tasks import Settled
from .pace import Pace

_PLANNED = {
    PlanState.RUN: "to run",
    PlanState.DONE: "done already",
    PlanState.DUPLICATE: "duplicate",
    PlanState.BAD: "cannot be run",
}


class TerminalView:
    """A progress bar with tiles/s and time left, and a table at the end."""

    MOST_ROWS = 60
    """A table longer than this leaves out the slides that are simply done."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._console = Console()
        self._bar = Progress(
            TextColumn("{task.fields[slides]}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[pace]}"),
            console=self._console,
        )
        self._task: Any = None
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._ended = 0
        self._pace = Pace(0)

    def planning(self, done: int, total: int) -> None:
        with self._lock:
            self._update(done / max(1, total), slides=f"{done}/{total} slides looked at", pace="")

    def planned(self, plan: Plan) -> None:
        from rich.table import Table

        with self._lock:
            self._remove()
        states = [slide.state for slide in plan.slides]
        summary = ", ".join(f"{states.count(state)} {words}" for state, words in _PLANNED.items() if state in states)
        self._console.print(
            f"{len(states)} slides: {summary}; about {in_bytes(plan.bytes_needed)} needed, "
            f"{in_bytes(plan.bytes_free)} free",
            highlight=False,
        )
        findings = Table.grid(padding=(0, 2))
        for finding in plan.findings:
            findings.add_row("", *(Text(part) for part in (finding.kind, finding.name, finding.detail)))
        if plan.findings:
            self._console.print(findings)
        self._sizes = {slide.key: slide.size_bytes for slide in plan.of_state(PlanState.RUN)}
        self._pace = Pace(sum(self._sizes.values()))

    def tell(self, finding: Finding) -> None:
        text = ": ".join(part for part in (finding.kind, finding.name, finding.detail) if part)
        self._console.print(f"  {text}", markup=False, highlight=False)

    def progress(self, key: str, done: int, total: int) -> None:
        with self._lock:
            self._pace.see(key, done, total, self._sizes.get(key, 0))
            self._show()

    def settled(self, settled: Settled, path: Path) -> None:
        with self._lock:
            self._ended += 1
            self._pace.finish(settled.key, self._sizes.get(settled.key, 0))
            self._show()
        if settled.state != AttemptState.DONE:
            self._console.print(f"  {settled.state}: {shown_name(path)}: {settled.reason}", markup=False)

    def finished(self, report: dict[str, Any]) -> None:
        from rich import box
        from rich.table import Table

        self.close()
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("slide", "state", "tiles", "s", "attempts", "reason"):
            table.add_column(name, justify="right" if name in ("tiles", "s", "attempts") else "left")
        rows = report["slides"]
        if len(rows) > self.MOST_ROWS:
            rows = [row for row in rows if row["state"] != AttemptState.DONE or row.get("trust") in FLAGGED]
        for row in rows:
            tiles = row["tiles"].get("ok", "") if row["tiles"] else ""
            seconds = f"{row['seconds']:.1f}" if row["attempts"] else ""
            remark = row["reason"] or FLAGGED.get(row.get("trust"), "")
            values = (row["name"], row["state"], str(tiles), seconds, str(row["attempts"] or ""), remark)
            table.add_row(*map(Text, values))
        if rows:
            self._console.print(table)
        counts = ", ".join(f"{number} {state}" for state, number in report["counts"].items() if number)
        flagged = [row.get("trust") for row in report["slides"] if row.get("trust") in FLAGGED]
        counts += "".join(f", {flagged.count(name)} {name}" for name in FLAGGED if name in flagged)
        self._console.print(f"{counts or 'nothing to do'}; exit code {report['exit_code']}", highlight=False)

    def close(self) -> None:
        with self._lock:
            if self._task is not None:
                self._bar.stop()

    def _show(self) -> None:
        fraction, rate, left = self._pace.rates()
        time_left = "" if left is None else f", {int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02} left"
        self._update(fraction, slides=f"{self._ended}/{len(self._sizes)} slides", pace=f"{rate:.0f} tiles/s{time_left}")

    def _update(self, fraction: float, **fields: Any) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("batch", total=1.0, **fields)
        self._bar.update(self._task, completed=fraction, **fields)

    def _remove(self) -> None:
        """Take the bar of the planning away; the work has its own."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.stop()
            self._task = None
