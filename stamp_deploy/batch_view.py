"""What a batch shows while it runs: a progress bar on a terminal, JSON lines anywhere else."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, Protocol, TextIO

from .batch_plan import Plan
from .board import Settled
from .ledger import now_utc
from .log import slide_token


class View(Protocol):
    """Shows the course of a batch."""

    def planned(self, plan: Plan) -> None: ...
    def progress(self, key: str, done: int, total: int) -> None: ...
    def settled(self, settled: Settled, path: Path) -> None: ...
    def finished(self, report: dict[str, Any]) -> None: ...


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
        self._pace = Pace(0)

    def planned(self, plan: Plan) -> None:
        self._sizes = {slide.key: slide.size_bytes for slide in plan.of_state("run")}
        self._pace = Pace(sum(self._sizes.values()))
        states = [slide.state for slide in plan.slides]
        self._emit(
            "planned",
            slides={state: states.count(state) for state in sorted(set(states))},
            bytes_needed=plan.bytes_needed,
            bytes_free=plan.bytes_free,
        )
        for finding in plan.findings:
            self._emit(
                "finding",
                kind=finding.kind,
                detail=finding.detail,
                fatal=finding.fatal,
                **self._slide(finding.name),
            )

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
        reason = settled.reason.replace(path.name, "the slide") if not self._names else settled.reason
        self._emit(
            "slide",
            state=settled.state,
            reason=reason,
            attempts=settled.attempts,
            seconds=settled.seconds,
            tiles=settled.summary.get("tiles", {}).get("ok", 0),
            **self._slide(path.name),
        )

    def finished(self, report: dict[str, Any]) -> None:
        self._emit(
            "finished", exit_code=report["exit_code"], counts=report["counts"], seconds=report["seconds"]
        )

    def _slide(self, name: str) -> dict[str, str]:
        token = {"slide": slide_token(Path(name))}
        return {**token, "name": name} if self._names else token

    def _emit(self, event: str, **fields: Any) -> None:
        line = json.dumps({"time": now_utc(), "event": event, **fields}, ensure_ascii=False)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


class TerminalView:
    """A progress bar with tiles/s and time left, and a table at the end."""

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

    def planned(self, plan: Plan) -> None:
        states = [slide.state for slide in plan.slides]
        words = {"run": "to run", "done": "done already", "duplicate": "duplicate", "bad": "cannot be run"}
        summary = ", ".join(f"{states.count(s)} {words[s]}" for s in words if s in states)
        self._console.print(
            f"{len(states)} slides: {summary}; about {plan.bytes_needed / 1e9:.2f} GB needed, "
            f"{plan.bytes_free / 1e9:.1f} GB free",
            highlight=False,
        )
        for finding in plan.findings:
            self._console.print(f"  {finding.kind}: {finding.name}: {finding.detail}", markup=False)
        self._sizes = {slide.key: slide.size_bytes for slide in plan.of_state("run")}
        self._pace = Pace(sum(self._sizes.values()))

    def progress(self, key: str, done: int, total: int) -> None:
        with self._lock:
            self._pace.see(key, done, total, self._sizes.get(key, 0))
            self._show()

    def settled(self, settled: Settled, path: Path) -> None:
        with self._lock:
            self._ended += 1
            self._pace.finish(settled.key, self._sizes.get(settled.key, 0))
            self._show()
        if settled.state != "done":
            self._console.print(f"  {settled.state}: {path.name}: {settled.reason}", markup=False)

    def _show(self) -> None:
        fraction, rate, left = self._pace.rates()
        time_left = (
            ""
            if left is None
            else f", {int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02} left"
        )
        fields: dict[str, Any] = {
            "slides": f"{self._ended}/{len(self._sizes)} slides",
            "pace": f"{rate:.0f} tiles/s{time_left}",
        }
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("batch", total=1.0, **fields)
        self._bar.update(self._task, completed=fraction, **fields)

    def finished(self, report: dict[str, Any]) -> None:
        from rich.table import Table

        with self._lock:
            if self._task is not None:
                self._bar.stop()
        table = Table("slide", "state", "tiles", "s", "attempts", "reason")
        for slide in report["slides"]:
            tiles = slide["tiles"].get("ok", "") if slide["tiles"] else ""
            table.add_row(
                slide["name"], slide["state"], str(tiles), f"{slide['seconds']:.1f}", str(slide["attempts"]),
                slide["reason"],
            )  # fmt: skip
        self._console.print(table)
        counts = ", ".join(f"{number} {state}" for state, number in report["counts"].items() if number)
        self._console.print(f"{counts or 'nothing to do'}; exit code {report['exit_code']}", highlight=False)


def choose_view(*, names: bool = False) -> View:
    """The bar on a terminal, JSON lines otherwise."""
    return TerminalView() if sys.stdout.isatty() else JsonView(names=names)
