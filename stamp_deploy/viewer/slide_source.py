"""The slides that are shown: opened when they are looked at, proven to be the scored ones, watched for changes.

A file of the right name, size and dimensions is shown at once, while its SHA-256 is worked out. Where that differs, or
the file changes, its tiles are no longer shown: scores over another slide's tissue would mislead. The result's own
picture takes their place.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from ..errors import SlideError, StampError
from ..result import Result
from ..slide import Slide, open_slide
from ..slide.colour import KINDS
from ..system import isolation
from .slide_finder import SlideFinder
from .tile_cache import TileCache
from .tile_maker import TileMaker

MOST_OPEN = 6
"""Slides that are held open at once."""
LOOK_EVERY_S = 1.0
"""How often a slide is looked at for changes, at most."""


class SourceState(StrEnum):
    """What is known of the file that is shown."""

    ABSENT = "absent"
    CHECKING = "checking"
    SCORED = "scored"
    REFUSED = "refused"


WORDS = {
    SourceState.ABSENT: "The slide itself was not found: its small picture is shown. Start the viewer with --slides "
    "FOLDER, the folder in which the slide lies.",
    SourceState.CHECKING: "Checking that this is the slide that was scored.",
    SourceState.SCORED: "This is the slide that was scored: its SHA-256 agrees.",
}


@dataclass(frozen=True)
class SourceFacts:
    """State of a slide's file, with the words for it."""

    state: SourceState
    words: str


class SlideSource:
    """Where one result's tiles come from.

    Parameters
    ----------
    key : str
        The result's.
    result : Result
    slide : Slide or None
        Open; None where it was not found, or could not be opened.
    why_none : str
        What was wrong with the file that was found.
    cache : TileCache
    """

    def __init__(self, key: str, result: Result, slide: Slide | None, why_none: str, cache: TileCache) -> None:
        size = result.slide.width, result.slide.height
        self._picture = TileMaker(None, size, result.thumbnail, cache, (key, "picture", result.slide.sha256))
        self._maker = self._picture
        self._slide, self._wanted = slide, result.slide.sha256
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self.users = 0
        self.facts = SourceFacts(SourceState.ABSENT, WORDS[SourceState.ABSENT])
        if why_none:
            self.facts = SourceFacts(SourceState.REFUSED, why_none)
        if slide is not None:
            self._maker = TileMaker(slide, size, result.thumbnail, cache, (key, "slide", result.slide.sha256))
            self.facts = SourceFacts(SourceState.CHECKING, WORDS[SourceState.CHECKING])
            threading.Thread(target=self._check, name="hash", daemon=True).start()

    @property
    def maker(self) -> TileMaker:
        """Makes the tiles: of the slide, or of the result's picture where the slide may not be shown."""
        self._look()
        return self._maker if self.facts.state in (SourceState.CHECKING, SourceState.SCORED) else self._picture

    @property
    def kind(self) -> str:
        """ "slide" or "picture": the zoom levels of the two differ."""
        return "picture" if self.maker is self._picture else "slide"

    def maker_of(self, kind: str) -> TileMaker | None:
        """What makes the tiles of a kind; None where that is not shown, or not any more."""
        maker = self.maker
        return maker if (kind == "picture") == (maker is self._picture) else None

    def close(self) -> None:
        if self._slide is not None:
            self._maker.close()
            self._slide.close()

    def _check(self) -> None:
        assert self._slide is not None
        try:
            same = self._slide.sha256() == self._wanted
        except StampError as error:
            self._refuse(str(error))
            return
        if same:
            self.facts = SourceFacts(SourceState.SCORED, WORDS[SourceState.SCORED])
        else:
            self._refuse(
                "The file of this name is not the slide that was scored: its SHA-256 differs. Its small picture is "
                "shown. Name the folder of the scored slide with --slides."
            )

    def _look(self) -> None:
        """Whether the file is still as it was; once it is known to be the right one."""
        now = time.monotonic()
        if self.facts.state != SourceState.SCORED or now < self._looked_at + LOOK_EVERY_S:
            return
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._looked_at = now
            assert self._slide is not None
            self._slide.sha256()
        except SlideError:
            self._refuse(
                "The slide's file was changed while it was shown. Its small picture is shown instead. Put the scored "
                "file back and start the viewer again."
            )
        finally:
            self._lock.release()

    def _refuse(self, words: str) -> None:
        self.facts = SourceFacts(SourceState.REFUSED, words)


class SlideSources:
    """The open slides; the one that was looked at longest ago is closed first.

    Parameters
    ----------
    finder : SlideFinder
    cache : TileCache
    """

    def __init__(self, finder: SlideFinder, cache: TileCache) -> None:
        self._finder, self._cache = finder, cache
        self._open: OrderedDict[str, SlideSource] = OrderedDict()
        self._lock = threading.Lock()
        self._opening = threading.Lock()

    @contextmanager
    def use(self, key: str, result: Result) -> Iterator[SlideSource]:
        """The source of a result's tiles, which is not closed while it is used."""
        source = self._held(key)
        if source is None:
            with self._opening:
                source = self._held(key) or self._add(key, result)
        try:
            yield source
        finally:
            with self._lock:
                source.users -= 1
                self._close_old()

    def close(self) -> None:
        """Close all slides."""
        with self._lock:
            for source in self._open.values():
                source.close()
            self._open.clear()

    def _held(self, key: str) -> SlideSource | None:
        with self._lock:
            source = self._open.get(key)
            if source is not None:
                source.users += 1
                self._open.move_to_end(key)
            return source

    def _add(self, key: str, result: Result) -> SlideSource:
        source = SlideSource(key, result, *self._open_slide(result), self._cache)
        source.users = 1
        with self._lock:
            self._open[key] = source
            self._close_old()
        return source

    def _close_old(self) -> None:
        for key in [key for key, source in self._open.items() if source.users == 0]:
            if len(self._open) <= MOST_OPEN:
                return
            self._open.pop(key).close()

    def _open_slide(self, result: Result) -> tuple[Slide | None, str]:
        """The slide of a result, and what was wrong with the file that was found."""
        facts, why = result.slide, ""
        for path in self._finder.find(facts.name):
            try:
                slide = open_slide(path, mpp=facts.mpp_x, accept=KINDS)
            except StampError as error:
                why = f"The slide was found and cannot be shown: {error}. Its small picture is shown."
                continue
            if (slide.width, slide.height, slide.size_bytes) == (facts.width, facts.height, facts.size_bytes):
                isolation.note(slide=str(path), stage="showing it")
                return slide, ""
            slide.close()
            why = (
                "The file of this name is not the slide that was scored: its size differs. Its small picture is "
                "shown. Name the folder of the scored slide with --slides."
            )
        return None, why
