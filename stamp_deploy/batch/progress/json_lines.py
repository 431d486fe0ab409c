"""The course of a batch as JSON lines, for logs and programs."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from ...system.log import slide_token
from ...system.names import shown_name
from ..planning.plan import Finding, Plan
from ..records.ledger import now_utc
from ..states import PlanState
from ..workers.tasks import Settled
from .pace import Pace


class JsonView:
    """One JSON object per line. Slides appear by token (see log.py), by name only when asked for."""

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
            trust=settled.summary.get("trust"),
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
