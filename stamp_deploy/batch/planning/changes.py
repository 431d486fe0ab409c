"""What has changed since a result was made: the slide's bytes, or the result itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ...atomic import is_done, why_not_whole
from ..records.slide_states import SlideRecord, SlideStates, file_state
from .dicom_series import SeriesOf
from .slide_parts import slide_parts

IdentityOf = Callable[[Path], str]
"""The SHA-256 that identifies a slide, as a run hashes it; reads the whole slide."""


class Changes:
    """Compares slides with what is known of them in an output directory.

    Parameters
    ----------
    out : Path
        The output directory.
    states : SlideStates
        What earlier runs noted.
    identity_of : callable
        Hashes a slide.
    series_of : callable
        Gives the series of a DICOM file.
    note : bool
        Whether to write down what was found out (not in a dry run).
    """

    def __init__(
        self, out: Path, states: SlideStates, identity_of: IdentityOf, series_of: SeriesOf, *, note: bool = True
    ) -> None:
        self._out = out
        self._states = states
        self._identity_of = identity_of
        self._series_of = series_of
        self._note = note

    def state(self, path: Path) -> str:
        """How a slide's files look now (`file_state`); empty where they cannot be looked at."""
        try:
            return file_state(slide_parts(path, self._series_of))
        except OSError:
            return ""

    def since_done(self, path: Path, key: str, state: str) -> str:
        """The hash of a slide whose finished result is of other bytes; "" where the result is of these.

        Raises
        ------
        SlideError
            The slide cannot be read to the end.
        """
        record = self._states.get(key) or SlideRecord()
        if record.sha256 and state in record.states:
            return ""
        scored = record.sha256 or self._hash_in_result(key)
        if not scored and not self._note:
            return ""
        identity = self._identity_of(path)
        if scored and identity != scored:
            return identity
        if self._note:  # a result of which nothing is known is trusted, and the slide watched from here on
            self._states.put(key, identity, state)
        return ""

    def since_failed(self, key: str, state: str) -> bool:
        """Whether a slide looks otherwise than when it was last tried."""
        record = self._states.get(key)
        return record is not None and bool(state) and state not in record.states

    def why_broken(self, key: str) -> str:
        """What is wrong with the folder of a result that is not whole; "" where there is none."""
        folder = self._out / key
        if is_done(folder):
            return why_not_whole(folder)
        try:
            return "its DONE file is missing" if any(folder.iterdir()) else ""
        except OSError:
            return ""

    def _hash_in_result(self, key: str) -> str:
        """What a result without a record says about its slide."""
        try:
            sha256 = json.loads((self._out / key / "result.json").read_text(encoding="utf-8"))["slide"]["sha256"]
        except (OSError, ValueError, TypeError, KeyError):
            return ""
        return sha256 if isinstance(sha256, str) else ""
