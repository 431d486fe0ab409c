"""Libraries are kept from writing what stands in a file: messages, warnings and tracebacks quote it.

A description of a slide can name its patient, and the readers of files quote what they do not understand. So the
package's import silences the libraries that read or write files (`quiet_libraries`); each process of the package's own
(command, worker, decoder) closes the other ways too (`guard_process`); and an error of a library is told by its type
and place (`traceback_text`, `place`) or with what it quotes taken out (`without_quotes`).
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from .streams import on_descriptor

_NAMES = (
    "PIL anndata dask defusedxml fontTools h5py highdicom httpcore httpx imagecodecs imageio jinja2 lxml matplotlib "
    "numcodecs ome_zarr openslide pyarrow pydicom pynetdicom python_multipart pyvips scanpy spatialdata tifffile "
    "xarray xarray_schema zarr"
)
LIBRARIES = frozenset(_NAMES.split())
"""Packages that read, write or transfer files of patients. Their messages and warnings are dropped in every process."""
LEFT_OUT = "message left out: it may quote a file"
_QUOTED = re.compile(  # up to the closing mark, or to the end; an apostrophe inside a word (can't) is no mark
    r"“[^”]*(?:”|$)|‘.*?(?:’(?!\w)|$)|\"[^\"]*(?:\"|$)|(?<!\w)'.*?(?:'(?!\w)|$)|`[^`']*(?:[`']|$)|«[^»]*(?:»|$)"
)
_QUOTING = re.compile(r"((?:XML|[Kk]ey[ -]?file|INI)\b[^:]*)[:,].*", re.DOTALL)


def quiet_libraries() -> None:
    """Drop the messages and warnings of `LIBRARIES` in this process, whatever handlers they attach, and when."""
    make = logging.getLogRecordFactory()
    if getattr(make, "quiet", False):
        return

    def make_quiet(
        name: str, level: int, file: str, line: int, message: Any, args: Any, info: Any, *more: Any, **by: Any
    ) -> Any:
        if name.partition(".")[0] in LIBRARIES:
            return make(name, level, file, line, LEFT_OUT, (), None, by.get("func"))
        return make(name, level, file, line, message, args, info, *more, **by)

    make_quiet.quiet = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_quiet)
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    show = warnings.showwarning

    def show_quiet(message: Warning | str, category: type[Warning], filename: str, *more: Any, **by: Any) -> None:
        if not is_of_a_library(filename) and "stamp_deploy" not in Path(filename).parts:
            show(message, category, filename, *more, **by)

    warnings.showwarning = show_quiet


def is_of_a_library(filename: str) -> bool:
    """Whether a file of code belongs to `LIBRARIES`."""
    return not LIBRARIES.isdisjoint(part.removesuffix(".py") for part in Path(filename).parts)


def guard_process(*, streams: bool = True) -> None:
    """Let nothing but the package's own words leave this process: it must belong to the package alone.

    Warnings of anybody are dropped, and an error that nobody handles is told without its message. With `streams` the
    standard output and error of C libraries go nowhere, while Python's keep their place.
    """
    quiet_libraries()
    warnings.showwarning = lambda *_, **__: None
    sys.excepthook = _tell
    threading.excepthook = lambda args: _tell(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: None
    if streams:
        sys.stdout, sys.stderr = _own(sys.stdout), _own(sys.stderr)


def _own(stream: TextIO) -> TextIO:
    """`stream` on a descriptor of its own; what writes to the old descriptor writes to nothing."""
    stream.flush()
    number = stream.fileno()
    own = on_descriptor(os.dup(number), stream)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)
    return own


def _tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    print(traceback_text(error or kind()), file=sys.stderr, flush=True)


def traceback_text(error: BaseException) -> str:
    """A traceback that quotes no file: where, and the types of the errors, without what they say."""
    parts: list[str] = []
    step: BaseException | None = error
    seen: set[int] = set()
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        frames = "".join(traceback.format_list(traceback.extract_tb(step.__traceback__)))
        parts.append(f"Traceback (most recent call last):\n{frames}{type(step).__name__} ({LEFT_OUT})\n")
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return "\nled to:\n\n".join(reversed(parts))


def place(error: BaseException) -> str:
    """An error in a line, for a record: its type, and the file and line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    code = "/".join(Path(frames[-1].filename).parts[-2:])
    return f"{type(error).__name__} at {code}:{frames[-1].lineno}"


def without_quotes(error: BaseException | str) -> str:
    """What a library says, on one line, without the parts in which it may quote a file."""
    text = " ".join(str(error).split())
    text = _QUOTING.sub(r"\1", text)
    return "".join(c if c.isprintable() else "?" for c in _QUOTED.sub("...", text))[:300]
