"""Which bytes each result was made of, and how their files looked then: so that a changed slide is noticed.

A slide's key is made of its size and three samples; bytes that change elsewhere keep it. The hash that a run makes
anyway is kept for each key, with the state of the files (sizes, times, inodes): as long as that is the same nothing is
read again, and once it differs the whole slide is hashed and compared.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...atomic import sweep, write_json_atomic
from ...errors import DiskError

MOST_STATES = 8
"""Places from which the same bytes were seen; older ones are forgotten, and hashed again if they come back."""


@dataclass(frozen=True)
class SlideRecord:
    """What is known of the slide behind a key.

    ``sha256`` identifies its bytes as the run hashed them, or is empty where none got that far. ``states`` are the
    `file_state`s in which it was seen with those bytes.
    """

    sha256: str = ""
    states: tuple[str, ...] = ()


class SlideStates:
    """The records of one output directory, a small file per key; a damaged one counts as none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> SlideRecord | None:
        """The record of a key."""
        try:
            value = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
            record = SlideRecord(value["sha256"], tuple(value["states"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return record if all(isinstance(text, str) for text in (record.sha256, *record.states)) else None

    def put(self, key: str, sha256: str, state: str) -> None:
        """Note that a slide in this state has these bytes.

        Raises
        ------
        DiskError
            When it cannot be written.
        """
        old = self.get(key)
        kept = old.states if old is not None and old.sha256 == sha256 else ()
        states = (*(one for one in kept if one != state), state)[-MOST_STATES:]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"cannot be made: {error.strerror}", path=self.folder, remedy="free some space") from error
        write_json_atomic(self.folder / f"{key}.json", {"sha256": sha256, "states": list(states)})

    def tidy(self) -> None:
        """Remove what killed processes left."""
        sweep(self.folder, ".*")


def file_state(parts: Iterable[Path]) -> str:
    """How the files of a slide look, as a short hash: of each its size, inode, and times of change.

    Anything that can change their bytes changes this; moving or touching them does too, which costs one look at the
    bytes. Empty where a file is gone.
    """
    lines = []
    for part in parts:
        try:
            found = part.stat()
        except OSError:
            return ""
        numbers = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        lines.append(os.fsencode(part.name) + "".join(f" {number}" for number in numbers).encode() + b"\n")
    return hashlib.sha256(b"".join(sorted(lines))).hexdigest()[:24]
