"""Exceptions that a user can act on, and the exit code each one carries.

Every message answers three questions: which file, what is wrong, what to do. The command line
prints it on one line and exits with the class's code; anything that is not a StampError is a bug
of ours and exits with 1.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

from .system.names import printable, shown_name

COPY_AGAIN = "copy or scan the slide again"
"""The remedy of a damaged slide, and of nothing else."""


class ExitCode(IntEnum):
    """Exit codes of the ``stamp-deploy`` command (documented in docs/exit-codes.md)."""

    OK = 0
    BUG = 1
    USAGE = 2
    SOME_FAILED = 3
    NONE_SUCCEEDED = 4
    BAD_BUNDLE = 5
    DISK = 6
    OUTSIDE = 7
    ARCHIVE = 8
    TRY_AGAIN = 75


class StampError(Exception):
    """A failure with a known cause.

    Parameters
    ----------
    cause : str
        What is wrong, without a trailing full stop.
    remedy : str
        What the user can do about it.
    path : path-like, optional
        The file concerned; only its name is shown, since folders can identify patients.
    """

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, cause: str, *, remedy: str = "", path: str | Path | None = None) -> None:
        self.cause = printable(" ".join(cause.split()))
        self.remedy = printable(" ".join(remedy.split()))
        self.path = Path(path) if path is not None else None
        head = f"{shown_name(self.path)}: " if self.path is not None else ""
        tail = f" - {self.remedy}" if self.remedy else ""
        super().__init__(f"{head}{self.cause}{tail}")

    def about(self, path: str | Path) -> StampError:
        """The same error, naming `path` where it names no file yet."""
        return self if self.path is not None else _rebuild(type(self), self.cause, self.remedy, Path(path))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.cause, self.remedy, self.path))


def _rebuild(cls: type[StampError], cause: str, remedy: str, path: Path | None) -> StampError:
    return cls(cause, remedy=remedy, path=path)


class UsageError(StampError):
    """The command or configuration asks for something impossible."""

    exit_code = ExitCode.USAGE


class SlideError(StampError):
    """The slide cannot be opened, read or trusted."""

    exit_code = ExitCode.NONE_SUCCEEDED


class OutsideError(SlideError):
    """The slide is unlike what the model knows, or cannot be judged, and --strict was asked for."""

    exit_code = ExitCode.OUTSIDE


class MppError(SlideError):
    """The slide states no believable microns per pixel."""


class ReadError(StampError):
    """The disk, the network or memory failed while a slide was read: it says nothing of the slide."""

    exit_code = ExitCode.NONE_SUCCEEDED


class BundleError(StampError):
    """The bundle is missing, altered, malformed or of an unknown version."""

    exit_code = ExitCode.BAD_BUNDLE


class ParityError(BundleError):
    """An export or an engine does not reproduce its reference within tolerance."""


class EngineError(StampError):
    """The inference engine asked for cannot be used on this machine."""

    exit_code = ExitCode.USAGE


class DiskError(StampError):
    """The output cannot be written."""

    exit_code = ExitCode.DISK


class DataError(StampError):
    """Training data that would teach something false: no patient ids, NaN counts, and the like."""

    exit_code = ExitCode.USAGE


class ArchiveError(StampError):
    """An image archive refuses, contradicts itself, or holds something else than it should."""

    exit_code = ExitCode.ARCHIVE


class ArchiveUnreachable(ArchiveError):
    """An image archive cannot be reached, does not answer, or asks to be left alone for a while.

    Parameters
    ----------
    retry_after_s : float
        How long the archive asks to wait, seconds; 0 where it does not say.
    """

    exit_code = ExitCode.TRY_AGAIN

    def __init__(
        self, cause: str, *, remedy: str = "", path: str | Path | None = None, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(cause, remedy=remedy, path=path)
        self.retry_after_s = retry_after_s
