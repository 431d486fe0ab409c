"""The files of an open slide, as they were when it was opened: what is scored and hashed must be one state of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import SlideError


class HeldFiles:
    """One descriptor of a slide's own file, opened before any reader, and how all its files looked.

    Parameters
    ----------
    path : Path
        The slide's file, or the one of several that was named.

    Raises
    ------
    OSError
        It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._seen = {path: os.fstat(self._descriptor)}

    def add(self, parts: Iterable[Path]) -> None:
        """Further files that the slide is read from."""
        for part in parts:
            if part not in self._seen:
                self._seen[part] = part.stat()

    def duplicate(self, part: Path | None = None) -> int:
        """Another descriptor of the file that was opened, also where its name stands for another file by now; or one
        of a further file, `part`.

        Raises
        ------
        SlideError
            It is a further file, or the slide is closed, and the name stands for another file.
        """
        part = part or self.path
        if part == self.path and self._descriptor >= 0:
            return os.dup(self._descriptor)
        descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
        if part not in self._seen or _content(os.fstat(descriptor)) != _content(self._seen[part]):
            os.close(descriptor)
            raise self.changed(part)
        return descriptor

    def check(self) -> bool:
        """Whether no more than links and rights have changed since the slide was opened; False where they have.

        Raises
        ------
        SlideError
            A file was written to, replaced or removed.
        """
        untouched = True
        for part, before in self._seen.items():
            try:
                now = part.stat()
            except OSError as error:
                raise self.changed(part) from error
            if _content(now) != _content(before):
                raise self.changed(part)
            untouched = untouched and now.st_ctime_ns == before.st_ctime_ns
        return untouched

    def accept(self) -> None:
        """Take the files as they are now: their content has been found to be the same."""
        self._seen = {part: part.stat() for part in self._seen}

    def close(self) -> None:
        """Close the descriptor; the files can be checked afterwards, too."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def changed(self, part: Path) -> SlideError:
        """The error that says so."""
        return SlideError(
            "was written to, replaced or removed while it was read: what was read may be of two files",
            path=part,
            remedy="wait until nothing writes to it any more, then run it again",
        )


def _content(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
