"""What a batch would do, found out before it does anything.

Each slide gets the key that names its result folder. Every slide is opened once, in a child process,
so that one that crashes or hangs the reader is found here; everything that is wrong is reported together.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import DiskError, EngineError, MppError, SlideError, StampError, UsageError
from ...system.files import refuse_special
from ...system.names import cut_name, shown_name
from ..states import FindingKind, PlanState
from .changes import Changes
from .folder import Skipped
from .inputs import Entry

SAMPLE_BYTES = 1 << 20
STEM_CHARS, STEM_BYTES = 80, 160
"""Most of a slide's name that goes into its key: room is left for hashes, an mpp, and the prefixes of staging."""
TISSUE_GUESS = 0.5
"""Fraction of the grid assumed to be tissue when estimating disk space."""
FIXED_BYTES = 8 << 20
"""Estimated size of a result's thumbnail, maps and records."""


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


Probe = Callable[[Path, float | None], SlideFacts]
"""Opens a slide, safely, and raises a StampError where it cannot (an MppError where its scale is unknown)."""


def fingerprint(path: Path) -> str:
    """SHA-256 over the size and three samples of 1 MiB: start, middle and end.

    Cheap on slides of many GB, and stable when a slide is moved or renamed. Equal fingerprints are
    confirmed byte by byte before two slides are called the same (``_same_bytes``).

    Raises
    ------
    SlideError
        When the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        digest.update(str(size).encode())
        with open(path, "rb") as file:
            for offset in sorted({0, max(0, size // 2 - SAMPLE_BYTES // 2), max(0, size - SAMPLE_BYTES)}):
                file.seek(offset)
                digest.update(file.read(SAMPLE_BYTES))
    except OSError as error:
        raise SlideError(f"the file cannot be read: {error.strerror}", path=path) from error
    return digest.hexdigest()


def slide_key(path: Path, digest: str, mpp: float | None = None) -> str:
    """Name of a slide's result folder: its stem, made safe, and 12 digits of its fingerprint.

    An mpp given by the user is part of it: with another one, the finished result is not the wanted one.
    """
    stem = cut_name(re.sub(r"[^\w.-]", "_", path.stem)[:STEM_CHARS], STEM_BYTES).lstrip(".") or "slide"
    key = f"{stem}-{digest[:12]}"
    return key if mpp is None else _key_at(key, mpp)


def _key_at(key: str, mpp: float) -> str:
    return f"{key}-mpp{mpp:g}"


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


def plan_batch(
    entries: Iterable[Entry],
    out: Path,
    *,
    probe: Probe,
    is_done: Callable[[str], bool],
    changes: Changes | None = None,
    skipped: Skipped | None = None,
    bytes_per_tile: int,
    tile_span_um: float,
    mpp: float | None = None,
    shard: tuple[int, int] = (0, 1),
    on_slide: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Look at every slide and report all that is wrong.

    Parameters
    ----------
    entries : iterable of Entry
        The slides.
    out : Path
        The output folder (for free space).
    probe : callable
        Opens one slide in safety.
    is_done : callable
        Whether the result with this key is finished; such slides are not opened again.
    changes : Changes, optional
        Compares slides that are done, or failed, with what they were then; without it they are taken for the same.
    skipped : Skipped, optional
        What was left out of the folders that were named, to be reported.
    bytes_per_tile : int
        Estimated bytes of output a tile.
    tile_span_um : float
        Side of a tile in microns.
    mpp : float, optional
        Microns per pixel of the slides that record none and are given none: one value for a folder of many must not
        outrank what each slide says of itself.
    shard : (int, int)
        Keep the slides whose fingerprint falls in shard i of n. Membership depends on the slide's bytes
        only, so that shards that start at different times, with files arriving, never miss one.
    on_slide : callable
        Called with (slides looked at, slides in all).
    """
    planned: list[PlannedSlide] = []
    findings: list[Finding] = []
    by_key: dict[str, PlannedSlide] = {}
    names: dict[str, str] = {}
    alike: defaultdict[str, list[PlannedSlide]] = defaultdict(list)
    entries = list(entries)
    for number, entry in enumerate(entries):
        on_slide(number, len(entries))
        slide = _identify(entry)
        if int(slide.fingerprint[:12] or "0", 16) % shard[1] != shard[0]:
            continue
        twin = next((p for p in alike[slide.fingerprint] if _same_bytes(p.path, slide.path)), None)
        if twin is not None:
            slide = replace(slide, state=PlanState.DUPLICATE, reason=f"same bytes as {twin.name}", key=twin.key)
            planned.append(slide)
            findings.append(Finding(FindingKind.DUPLICATE_CONTENT, slide.name, f"{slide.reason}; run once"))
            continue
        if slide.key in by_key:  # equal samples, different bytes: take the whole file into the key
            slide = replace(slide, key=f"{slide.key}-{_whole_hash(slide.path)[:12]}")
        if slide.state == PlanState.RUN:
            if names.setdefault(slide.name, slide.key) != slide.key:
                findings.append(
                    Finding(FindingKind.DUPLICATE_NAME, slide.name, f"different bytes; result is {slide.key}")
                )
            slide, notes = _examine(slide, probe, is_done, mpp, changes)
            findings += notes
            by_key[slide.key] = slide
            alike[slide.fingerprint].append(slide)
        if slide.kind is not None:
            findings.append(Finding(slide.kind, slide.name, slide.reason))
        planned.append(slide)
    needed = sum(
        _estimate(s.facts, bytes_per_tile, tile_span_um) for s in planned if s.state == PlanState.RUN and s.facts
    )
    free = shutil.disk_usage(_existing(out)).free
    if needed > free:
        findings.append(
            Finding(
                FindingKind.DISK_SPACE,
                shown_name(out),
                f"about {in_bytes(needed)} are needed and {in_bytes(free)} are free",
                fatal=True,
            )
        )
    skipped = skipped or Skipped()
    findings += [Finding(*found) for found in skipped.findings()]
    return Plan(tuple(planned), tuple(findings), needed, free, skipped.total)


def _identify(entry: Entry) -> PlannedSlide:
    try:
        refuse_special(entry.path, SlideError)
        if not entry.path.is_file():
            raise SlideError("there is no such file", path=entry.path)
        digest = fingerprint(entry.path)
        size = entry.path.stat().st_size
    except (SlideError, OSError) as error:
        cause = error.cause if isinstance(error, SlideError) else str(error.strerror)
        name_digest = hashlib.sha256(os.fsencode(entry.path)).hexdigest()
        key = slide_key(entry.path, name_digest)
        return PlannedSlide(entry.path, key, "", 0, entry.mpp, entry.case_id, PlanState.BAD, cause, FindingKind.MISSING)
    return PlannedSlide(
        entry.path, slide_key(entry.path, digest, entry.mpp), digest, size, entry.mpp, entry.case_id, PlanState.RUN
    )


def _examine(
    slide: PlannedSlide, probe: Probe, is_done: Callable[[str], bool], mpp: float | None, changes: Changes | None
) -> tuple[PlannedSlide, list[Finding]]:
    """The slide with its state, and what there is to tell of it."""
    if changes is not None:
        slide = replace(slide, file_state=changes.state(slide.path))
    tries = [slide]
    if mpp is not None and slide.mpp is None:
        tries.append(replace(slide, mpp=mpp, key=_key_at(slide.key, mpp)))
    notes: list[Finding] = []
    for i, one in enumerate(tries):
        if is_done(one.key):
            try:
                other = changes.since_done(one.path, one.key, one.file_state) if changes is not None else ""
            except StampError as error:
                reason = f"{error.cause}; {error.remedy}".rstrip("; ")
                return replace(one, state=PlanState.BAD, reason=reason, kind=FindingKind.UNREADABLE), notes
            if other:
                tries[i] = one = replace(one, key=f"{one.key}-{other[:12]}")
                detail = f"its bytes are not those that were scored; result is {one.key}"
                notes.append(Finding(FindingKind.CHANGED, one.name, detail))
            if not other or is_done(one.key):
                return replace(one, state=PlanState.DONE, reason="finished result found"), notes
    for one in tries:
        try:
            facts = probe(one.path, one.mpp)
            if changes is not None:
                if broken := changes.why_broken(one.key):
                    detail = f"{broken}; it is made again, what is left goes to .stamp/set-aside"
                    notes.append(Finding(FindingKind.BROKEN_RESULT, one.name, detail))
                one = replace(one, again=changes.since_failed(one.key, one.file_state))
            return replace(one, facts=facts), notes
        except (DiskError, EngineError):  # no process can be started: no slide's fault
            raise
        except StampError as error:
            kind = FindingKind.MISSING_MPP if isinstance(error, MppError) else FindingKind.UNREADABLE
            reason = f"{error.cause}; {error.remedy}".rstrip("; ")
            refused = replace(slide, state=PlanState.BAD, reason=reason, kind=kind)
            if kind == FindingKind.UNREADABLE:
                break
    return refused, notes


def in_bytes(number: int) -> str:
    """A number of bytes for people, in the unit that shows it: "3.2 GB", "80 MB"."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if number >= size:
            return f"{number / size:.1f} {unit}" if number < 100 * size else f"{number / size:.0f} {unit}"
    return f"{number / 1000:.1f} kB"


def _estimate(facts: SlideFacts, bytes_per_tile: int, tile_span_um: float) -> int:
    columns = facts.width * facts.mpp_x / tile_span_um
    rows = facts.height * facts.mpp_y / tile_span_um
    return FIXED_BYTES + int(columns * rows * TISSUE_GUESS * bytes_per_tile)


def _existing(path: Path) -> Path:
    for folder in (path, *path.absolute().parents):
        if folder.is_dir():
            return folder
    return Path("/")


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(4 << 20):
            yield block


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_size == other.stat().st_size and all(
            a == b for a, b in zip(_blocks(one), _blocks(other), strict=True)
        )
    except (OSError, ValueError):
        return False


def _whole_hash(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()
