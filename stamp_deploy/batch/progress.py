"""What a batch shows while it runs: a progress bar on a terminal, JSON lines anywhere else."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.text import Text

from ..system.log import slide_token
from ..system.names import shown_name
from .planning.plan import Finding, Plan, in_bytes
from .records.ledger import now_utc
from .states import AttemptState, PlanState
from .workers.tasks import Settled

_PLANNED = {
    PlanState.RUN: "to run",
    PlanState.DONE: "done already",
    PlanState.DUPLICATE: "duplicate",
    PlanState.BAD: "cannot be run",
}


class View(Protocol):
    """Shows the course of a batch. ``close`` is called in any case, after an error too."""

    def planning(self, done: int, total: int) -> None: ...
    def planned(self, plan: Plan) -> None: ...
    def tell(self, finding: Finding) -> None: ...
    def progress(self, key: str, done: int, total: int) -> None: ...
    def settled(self, settled: Settled, path: Path) -> None: ...
    def finished(self, report: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class Unfailing:
    """A view that nobody can see any more (a closed terminal or pipe) is no reason to stop the work."""

    def __init__(self, view: View) -> None:
        self._view = view

    def planning(self, done: int, total: int) -> None:
        with contextlib.suppress(OSError):
            self._view.planning(done, total)

    def planned(self, plan: Plan) -> None:
        with contextlib.suppress(OSError):
            self._view.planned(plan)

    def tell(self, finding: Finding) -> None:
        with contextlib.suppress(OSError):
            self._view.tell(finding)

    def progress(self, key: str, done: int, total: int) -> None:
        with contextlib.suppress(OSError):
            self._view.progress(key, done, total)

    def settled(self, settled: Settled, path: Path) -> None:
        with contextlib.suppress(OSError):
            self._view.settled(settled, path)

    def finished(self, report: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._view.finished(report)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._view.close()


class Pace:
    """Tiles a second and seconds left, from tiles seen and the share of the slides' bytes done."""

    def __init__(self, total_bytes: int) -> None:
        self._total = max(1, total_bytes)
        self._done_bytes = 0.0
        self._partial: dict[str, tuple[int, float]] = {}
        self._tiles = 0
        self._started = time.monotonic()

    def add(self, size_bytes: int) -> None:
        """More slides have come (watching a folder)."""
        self._total += size_bytes

    def see(self, key: str, done: int, total: int, size_bytes: int) -> None:
        """A slide has come so far."""
        self._tiles += max(0, done - self._partial.get(key, (0, 0.0))[0])
        self._partial[key] = (done, size_bytes * done / max(1, total))

    def finish(self, key: str, size_bytes: int) -> None:
        """A slide is settled."""
        self._partial.pop(key, None)
        self._done_bytes += size_bytes

    def rates(self) -> tuple[float, float, float | None]:
        """(fraction done, tiles/s, seconds left or None)."""
        elapsed = max(1e-3, time.monotonic() - self._started)
        done = min(1.0, (self._done_bytes + sum(size for _, size in self._partial.values())) / self._total)
        left = elapsed * (1 - done) / done if done > 0.001 else None
        return done, self._tiles / elapsed, left


class JsonView:
    """One JSON object a line. Slides appear by token (see log.py), by name only when asked for."""

    EVERY_S = 10.0

    def __init__(self, stream: TextIO | None = None, *, names: bool = False) -> None:
        self._stream = stream or sys.stdout
        self._names = names
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._sizes: dict[str, int] = {}
        self._tokens: dict[str, str] = {}
        self._pace = Pace(0)

    def planning(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= self.EVERY_S:
            self._last = time.monotonic()
            self._emit("planning", slides_seen=done, slides=total)

    def planned(self, plan: Plan) -> None:
        self._sizes = {slide.key: slide.size_bytes for slide in plan.of_state(PlanState.RUN)}
        self._pace = Pace(sum(self._sizes.values()))
        states = [slide.state for slide in plan.slides]
        self._emit(
            "planned",
            slides={state: states.count(state) for state in sorted(set(states))},
            bytes_needed=plan.bytes_needed,
            bytes_free=plan.bytes_free,
            **({"skipped": plan.skipped} if plan.skipped else {}),
        )
        self._tokens = {part: slide_token(s.path) for s in plan.slides for part in (s.name, s.key)}
        for finding in plan.findings:
            self.tell(finding)

    def tell(self, finding: Finding) -> None:
        name = finding.name
        who = self._slide(name, self._tokens.get(name) or slide_token(Path(name))) if name else {}
        detail = self._hide(finding.detail, self._tokens)
        self._emit("finding", kind=finding.kind, detail=detail, fatal=finding.fatal, **who)

    def progress(self, key: str, done: int, total: int) -> None:
        with self._lock:
            self._pace.see(key, done, total, self._sizes.get(key, 0))
            due = time.monotonic() - self._last >= self.EVERY_S
            if due:
                self._last = time.monotonic()
                fraction, rate, left = self._pace.rates()
        if due:
            self._emit(
                "progress",
                fraction=round(fraction, 4),
                tiles_per_s=round(rate, 1),
                seconds_left=None if left is None else round(left),
            )

    def settled(self, settled: Settled, path: Path) -> None:
        with self._lock:
            self._pace.finish(settled.key, self._sizes.get(settled.key, 0))
        tokens = dict.fromkeys((shown_name(path), settled.key), slide_token(path))
        self._emit(
            "slide",
            state=settled.state,
            reason=self._hide(settled.reason, tokens),
            attempts=settled.attempts,
            seconds=settled.seconds,
            tiles=settled.summary.get("tiles", {}).get("ok", 0),
            **self._slide(shown_name(path), slide_token(path)),
        )

    def finished(self, report: dict[str, Any]) -> None:
        self._emit("finished", exit_code=report["exit_code"], counts=report["counts"], seconds=report["seconds"])

    def close(self) -> None:
        pass

    def _hide(self, text: str, tokens: dict[str, str]) -> str:
        """The text with file names and keys replaced by tokens, unless names are asked for."""
        if not self._names:
            for name in sorted((name for name in tokens if name in text), key=len, reverse=True):
                text = text.replace(name, f"slide {tokens[name]}")
        return text

    def _slide(self, name: str, token: str) -> dict[str, str]:
        return {"slide": token, "name": name} if self._names else {"slide": token}

    def _emit(self, event: str, **fields: Any) -> None:
        line = json.dumps({"time": now_utc(), "event": event, **fields})  # ASCII: whatever the stream's encoding
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


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
            rows = [row for row in rows if row["state"] != AttemptState.DONE]
        for row in rows:
            tiles = row["tiles"].get("ok", "") if row["tiles"] else ""
            seconds = f"{row['seconds']:.1f}" if row["attempts"] else ""
            values = (row["name"], row["state"], str(tiles), seconds, str(row["attempts"] or ""), row["reason"])
            table.add_row(*map(Text, values))
        if rows:
            self._console.print(table)
        counts = ", ".join(f"{number} {state}" for state, number in report["counts"].items() if number)
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


def choose_view(*, names: bool = False) -> View:
    """The bar on a terminal, JSON lines otherwise."""
    if not sys.stdout.isatty():
        return JsonView(names=names)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that is not UTF-8 shows escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    return TerminalView()
