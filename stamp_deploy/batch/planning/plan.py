"""The plan of a batch: its slides with what is to be done with each, everything that is wrong, the disk space."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...system.names import shown_name
from ..states import FindingKind, PlanState


@dataclass(frozen=True)
class SlideFacts:
    """What a probe found out about a slide that can be opened."""

    width: int
    height: int
    mpp_x: float
    mpp_y: float
    vendor: str
    route: str


@dataclass(frozen=True)
class PlannedSlide:
    """A slide of the plan.

    ``reason`` says in words why it is not to be run, and ``kind`` of what kind that is where it is bad. ``file_state``
    is how its files looked (records/slide_states.py); ``again``: otherwise than when it was last tried.
    """

    path: Path
    key: str
    fingerprint: str
    size_bytes: int
    mpp: float | None
    case_id: str
    state: PlanState
    reason: str = ""
    kind: FindingKind | None = None
    facts: SlideFacts | None = None
    file_state: str = ""
    again: bool = False

    @property
    def name(self) -> str:
        """The file's name as text for people and records."""
        return shown_name(self.path)


@dataclass(frozen=True)
class Finding:
    """Something a user should know before the work starts; ``fatal`` findings stop the batch."""

    kind: FindingKind
    name: str
    detail: str
    fatal: bool = False


@dataclass(frozen=True)
class Plan:
    """All slides, everything that is wrong, and the disk space."""

    slides: tuple[PlannedSlide, ...]
    findings: tuple[Finding, ...]
    bytes_needed: int
    bytes_free: int
    skipped: int = 0

    def of_state(self, state: PlanState) -> list[PlannedSlide]:
        """Slides in one state."""
        return [slide for slide in self.slides if slide.state == state]

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values; slides by file name and key, never by folder."""
        return {
            "slides": [
                {
                    "name": s.name, "key": s.key, "state": s.state, "reason": s.reason,
                    "case_id": s.case_id,
                    "size_bytes": s.size_bytes, "mpp": s.mpp, "facts": asdict(s.facts) if s.facts else None,
                }
                for s in self.slides
            ],
            "findings": [asdict(finding) for finding in self.findings],
            "bytes_needed": self.bytes_needed,
            "bytes_free": self.bytes_free,
        }  # fmt: skip


def parse_shard(text: str) -> tuple[int, int]:
    """Parse ``i/n`` with 0 <= i < n (array and completion indices start at 0).

    Raises
    ------
    UsageError
        For anything else.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match or not int(match[1]) < int(match[2]):
        raise UsageError(f"shard {text!r} is not understood", remedy="use i/n with i from 0 to n-1, as 0/8")
    return int(match[1]), int(match[2])


def in_bytes(number: int) -> str:
    """A number of bytes for people, in the unit that shows it: "3.2 GB", "80 MB"."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if number >= size:
            return f"{number / size:.1f} {unit}" if number < 100 * size else f"{number / size:.0f} {unit}"
    return f"{number / 1000:.1f} kB"
