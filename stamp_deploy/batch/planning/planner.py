"""What a batch would do, found out before it does anything.

Each slide gets the key that names its result folder. Every slide is opened once, in a child process,
so that one that crashes or hangs the reader is found here; everything that is wrong is reported together.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ...errors import DiskError, EngineError, MppError, SlideError, StampError
from ...system.files import refuse_special
from ...system.names import shown_name
from ..states import FindingKind, PlanState
from .changes import Changes
from .folder import Skipped
from .identity import ByBytes, key_at, slide_key
from .inputs import Entry
from .plan import Finding, Plan, PlannedSlide, SlideFacts, in_bytes

TISSUE_GUESS = 0.5
"""Fraction of the grid assumed to be tissue when estimating disk space."""
FIXED_BYTES = 8 << 20
"""Estimated size of a result's thumbnail, maps and records."""
Probe = Callable[[Path, float | None], SlideFacts]
"""Opens a slide, safely, and raises a StampError where it cannot (an MppError where its scale is unknown)."""


def plan_batch(
    entries: Iterable[Entry],
    out: Path,
    *,
    probe: Probe,
    is_done: Callable[[str], bool],
    changes: Changes | None = None,
    recognise: ByBytes | None = None,
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
    recognise : ByBytes, optional
        Tells slides apart; by the bytes of their files where it is not given.
    skipped : Skipped, optional
        What was left out of the folders that were named, to be reported.
    bytes_per_tile : int
        Estimated bytes of output per tile.
    tile_span_um : float
        Side of a tile in microns.
    mpp : float, optional
        Microns per pixel of the slides that record none and are given none: one value for a folder of many must not
        outrank what each slide says about itself.
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
    entries, recognise = list(entries), recognise or ByBytes()
    for number, entry in enumerate(entries):
        on_slide(number, len(entries))
        slide = _identify(entry, recognise)
        if int(slide.fingerprint[:12] or "0", 16) % shard[1] != shard[0]:
            continue
        twin = next((p for p in alike[slide.fingerprint] if recognise.same(p.path, slide.path)), None)
        if twin is not None:
            slide = replace(slide, state=PlanState.DUPLICATE, reason=f"same bytes as {twin.name}", key=twin.key)
            planned.append(slide)
            findings.append(Finding(FindingKind.DUPLICATE_CONTENT, slide.name, f"{slide.reason}; run once"))
            continue
        if slide.key in by_key:  # equal samples, different bytes: take the whole file into the key
            slide = replace(slide, key=f"{slide.key}-{recognise.whole(slide.path)[:12]}")
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


def _identify(entry: Entry, recognise: ByBytes) -> PlannedSlide:
    try:
        refuse_special(entry.path, SlideError)
        if not entry.path.is_file():
            raise SlideError("there is no such file", path=entry.path)
        digest = recognise.fingerprint(entry.path)
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
        tries.append(replace(slide, mpp=mpp, key=key_at(slide.key, mpp)))
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


def _estimate(facts: SlideFacts, bytes_per_tile: int, tile_span_um: float) -> int:
    columns = facts.width * facts.mpp_x / tile_span_um
    rows = facts.height * facts.mpp_y / tile_span_um
    return FIXED_BYTES + int(columns * rows * TISSUE_GUESS * bytes_per_tile)


def _existing(path: Path) -> Path:
    for folder in (path, *path.absolute().parents):
        if folder.is_dir():
            return folder
    return Path("/")
