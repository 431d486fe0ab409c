"""Streams of storage tiles to pixels, in a process of its own: a crafted stream can end that process, not the run."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..system.child_process import ChildLostError, ChildProcess, ChildRefusalError
from .coding import StreamKind

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
MAX_STREAM_BYTES = 256 << 20


class StreamError(Exception):
    """A stream cannot be decoded; why, in words."""


class Decoder:
    """Decodes one stream at a time, in one helper process; one thread at a time."""

    def __init__(self) -> None:
        self._child = ChildProcess("stamp_deploy.codecs.decode")

    def decode(self, data: bytes, kind: StreamKind, stopped: Callable[[], bool] = lambda: False) -> NDArray[np.uint8]:
        """RGB, uint8 of `kind.shape`.

        Raises
        ------
        StreamError
            The stream is damaged, or its decoder crashed, hung or was stopped.
        """
        height, width, colours = kind.shape
        try:
            pixels = self._child.ask(kind.to_json(), data, height * width * colours, stopped)
        except (ChildRefusalError, ChildLostError) as error:
            raise StreamError(str(error)) from error
        return np.frombuffer(pixels, np.uint8).reshape(kind.shape)

    def close(self) -> None:
        """End the helper."""
        self._child.close()


def read_stream(fd: int, offset: int, size: int, *, in_items: bool) -> bytes:
    """A stream of a file; `in_items` where it lies there as a run of DICOM items, which are joined.

    Raises
    ------
    StreamError
        It does not lie inside of the file, or is no run of items.
    OSError
        The disk or network failed.
    """
    if size > MAX_STREAM_BYTES:
        raise StreamError(f"its stream has {size} bytes")
    data = bytearray()
    while len(data) < size:
        part = os.pread(fd, size - len(data), offset + len(data))
        if not part:
            raise StreamError("it lies beyond the end of the file")
        data += part
    return _joined(bytes(data)) if in_items else bytes(data)


def _joined(run: bytes) -> bytes:
    """The fragments of a run of DICOM items; a delimiter ends it, as in the C core."""
    out, at = [], 0
    while at < len(run) and run[at : at + 4] != _SEQUENCE_END:
        length = int.from_bytes(run[at + 4 : at + 8], "little")
        if run[at : at + 4] != _ITEM or at + 8 + length > len(run):
            raise StreamError("its fragments are damaged")
        out.append(run[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(out)
