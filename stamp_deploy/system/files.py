"""What a path named by a user leads to: readers wait without end on a pipe, and read a device without end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import StampError

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def special_kind(path: str | os.PathLike[str]) -> str | None:
    """What a path is that is neither a file nor a folder: "a named pipe", "a socket", "a device"; links are followed.

    None for files and folders, and for what cannot be looked at: opening that says why.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return next((name for is_kind, name in _KINDS if is_kind(mode)), None)


def refuse_special(path: Path, error: type[StampError]) -> None:
    """Refuse a pipe, a socket or a device before it is opened.

    Raises
    ------
    StampError
        Of the type `error`.
    """
    kind = special_kind(path)
    if kind is not None:
        raise error(f"is {kind}, not a file", path=path, remedy="copy the data into a file and name that")
