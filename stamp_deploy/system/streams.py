"""Standard streams that do not end a command in a traceback: closed, full, or with a reader that has gone."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO, TypeVar

from ..errors import DiskError

Answer = TypeVar("Answer")
_REPLACED: list[TextIO] = []
"""Python's own, kept: one that is thrown away closes its descriptor."""


class Output(io.TextIOWrapper):
    """Standard output or error.

    What goes to a reader that has left (``| head``) is dropped. Any other failure of standard output, such as a full
    disk behind ``>``, raises `DiskError` once; on standard error there is nobody to tell, and it is dropped, too.
    """

    fatal = True

    def write(self, text: str, /) -> int:
        return self._try(lambda: super(Output, self).write(text), len(text))

    def flush(self) -> None:
        self._try(super().flush, None)

    def _try(self, act: Callable[[], Answer], instead: Answer) -> Answer:
        try:
            return act()
        except OSError as error:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())  # what is buffered, and what follows
            os.close(nothing)
            if error.errno == errno.EPIPE or not self.fatal:
                return instead
            raise DiskError(
                f"standard output cannot be written: {error.strerror}", remedy="free space there, or send it elsewhere"
            ) from error


def on_descriptor(number: int, stream: TextIO) -> Output:
    """An `Output` that writes to the descriptor `number`, with the encoding of `stream`."""
    raw = io.FileIO(number, "w", closefd=False)
    made = Output(io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=True)
    made.fatal = stream is not sys.stderr
    return made


def guard_streams() -> None:
    """Put `Output` in place of this process's own standard output and error; open nothing where one is closed.

    A closed descriptor would be taken by the next file that is opened, and what is printed would end up in it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            opened = open(number, "r" if number == 0 else "w", closefd=False)  # noqa: SIM115 - it lives as long as we
            setattr(sys, name, opened)
            setattr(sys, f"__{name}__", opened)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and type(stream) is io.TextIOWrapper:
            stream.flush()
            _REPLACED.append(stream)
            made = on_descriptor(stream.fileno(), stream)
            setattr(sys, name, made)
            setattr(sys, f"__{name}__", made)
