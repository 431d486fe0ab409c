"""What shows the course of a batch: the interface, and the wrapper that outlives its audience."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Protocol

from ...errors import DiskError
from ..planning.plan import Finding, Plan
from ..workers.tasks import Settled


class View(Protocol):
    """Shows the course of a batch. ``close`` is called in any case, after an error too."""

    def planning(self, done: int, total: int) -> None: ...
    def planned(self, plan: Plan) -> None: ...
    def tell(self, finding: Finding) -> None: ...
    def progress(self, key: str, done: int, total: int) -> None: ...
    def settled(self, settled: Settled, path: Path) -> None: ...
    def finished(self, report: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


NOT_SHOWN = (OSError, DiskError)
"""How standard output fails: `stamp_deploy.system.streams`."""


class Unfailing:
    """A view that nobody can see any more (a closed terminal or pipe) is no reason to stop the work."""

    def __init__(self, view: View) -> None:
        self._view = view

    def planning(self, done: int, total: int) -> None:
        with contextlib.suppress(*NOT_SHOWN):
            self._view.planning(done, total)

    def planned(self, plan: Plan) -> None:
        with contextlib.suppress(*NOT_SHOWN):
            self._view.planned(plan)

    def tell(self, finding: Finding) -> None:
        with contextlib.suppress(*NOT_SHOWN):
            self._view.tell(finding)

    def progress(self, key: str, done: int, total: int) -> None:
        with contextlib.suppress(*NOT_SHOWN):
            self._view.progress(key, done, total)

    def settled(self, settled: Settled, path: Path) -> None:
        with contextlib.suppress(*NOT_SHOWN):
            self._view.settled(settled, path)

    def finished(self, report: dict[str, Any]) -> None:
        with contextlib.suppress(*NOT_SHOWN):
            self._view.finished(report)

    def close(self) -> None:
        with contextlib.suppress(*NOT_SHOWN):
            self._view.close()
