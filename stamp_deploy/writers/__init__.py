"""Output formats. One module per format, imported when the format is asked for; formats.py says what each writes.

A writer is a module with ``NAME`` (what --write takes), ``NEEDS`` (packages that it imports when it writes, so that a
missing one is found before any work), ``write(result, directory) -> list[Path]``, and perhaps ``check(slide)``. It
writes into a staging folder that is renamed when all writers have succeeded, so it need not be atomic itself; given the
same result it writes the same bytes, wherever the format allows. docs/writers.md lists them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from ..errors import UsageError
from ..system.quiet import quiet_libraries
from .formats import FORMATS

if TYPE_CHECKING:
    from ..result import Result

quiet_libraries()


class Writer(Protocol):
    """What a writer module looks like."""

    NAME: str
    NEEDS: tuple[str, ...]

    def write(self, result: Result, directory: Path) -> list[Path]: ...


def load_writer(name: str) -> Writer:
    """Import one writer.

    Raises
    ------
    UsageError
        The format is unknown, or the library that it needs is not installed.
    """
    if name not in FORMATS:
        raise UsageError(f"unknown output format {name!r}", remedy=f"one of: {', '.join(FORMATS)}")
    extra = FORMATS[name].extra
    writer = cast(Writer, import_module(f"{__name__}.{FORMATS[name].module}"))
    missing = [package for package in writer.NEEDS if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"output format {name!r} needs the Python package {', '.join(missing)}",
            remedy=f"pip install 'stamp-deploy[{extra}]'" if extra else "install stamp-deploy again",
        )
    return writer


def check_names(names: Sequence[str], slide: Path | None = None) -> None:
    """Refuse formats that cannot be written before time is spent on the slide.

    Parameters
    ----------
    names : sequence of str
        Formats asked for.
    slide : Path, optional
        The slide to be read; formats that fit some slides only (a module with a `check`) look at it.

    Raises
    ------
    UsageError
        As `load_writer`; or a format cannot describe this slide.
    """
    for name in names:
        check = getattr(load_writer(name), "check", None)
        if check is not None and slide is not None:
            check(slide)


def write_all(result: Result, directory: Path, names: Sequence[str]) -> list[Path]:
    """Write every format in `names` into `directory`; returns the files, in order."""
    written: list[Path] = []
    for name in dict.fromkeys(names):
        written.extend(load_writer(name).write(result, directory))
    return written
