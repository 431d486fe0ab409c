"""The words that the parts of a batch say to each other: Task, Outcome, and who gives and takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..states import AttemptState, OutcomeState


@dataclass(frozen=True)
class Task:
    """One slide to be scored.

    ``solo`` asks for a worker that does nothing else meanwhile: it is set after a crash, so that a
    second crash can be blamed on this slide alone. Lower ``priority`` goes first. ``again``: it has changed
    since it failed, so that its last word is not the final one.
    """

    key: str
    slide: Path
    out: Path
    mpp: float | None = None
    solo: bool = False
    priority: int = 0
    again: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The task as JSON values."""
        return {"key": self.key, "slide": str(self.slide), "out": str(self.out), "mpp": self.mpp}


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended.

    ``summary`` is what the worker measured.
    """

    key: str
    state: OutcomeState
    reason: str = ""
    seconds: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settled:
    """A slide's final word in this run."""

    key: str
    state: AttemptState
    reason: str = ""
    attempts: int = 0
    seconds: float = 0.0
    by: str = "this process"
    summary: dict[str, Any] = field(default_factory=dict)


class WorkSource(Protocol):
    """Gives out tasks; safe to call from many threads."""

    def take(self, *, wait: bool) -> Task | None:
        """The next task.

        With ``wait`` the caller is idle: block until there is a task, or return None when there will be
        none any more. Without it return at once, and never a solo task.
        """
        ...

    def finished(self) -> bool:
        """Whether there will be no task any more."""
        ...


class Listener(Protocol):
    """Hears what happens; safe to call from many threads."""

    def outcome(self, outcome: Outcome) -> None: ...

    def progress(self, key: str, done: int, total: int) -> None: ...

    def restarted(self, cause: str) -> None: ...


class Executor(Protocol):
    """Runs the tasks of a source until it is exhausted."""

    def run(self, source: WorkSource, listener: Listener) -> None: ...

    def stop(self) -> None:
        """Abandon what is running; ``run`` returns soon after. May be called from any thread."""
        ...
