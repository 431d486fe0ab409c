"""An HDF5 file on a disk that may be full.

The HDF5 library does not survive a write that fails: it keeps what it could not write, tries again when the process
ends, and crashes there, so that the shell sees a signal instead of the exit code. So the library is never told: what
cannot go to the disk goes to memory, and the error is raised when the file has been closed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import h5py


@contextmanager
def hdf5_file(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file to write to.

    Raises
    ------
    OSError
        The disk refused something, raised at the end; `path` then holds a part of the file.
    """
    import h5py

    with _Disk(path) as disk:
        with h5py.File(disk, "w") as file:
            yield file
        if disk.error is not None:
            raise disk.error


class _Disk:
    """A file for h5py whose operations never fail: after the first error it lives on in memory."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._file: BinaryIO = path.open("x+b", buffering=0)

    def __enter__(self) -> _Disk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view):
            data = self._file.read(len(view) - done)
            if not data:
                break
            view[done : done + len(data)] = data
            done += len(data)
        return done

    def write(self, data: Any) -> int:
        view, start = memoryview(data).cast("B"), self._file.tell()
        try:
            done = 0
            while done < len(view):
                done += self._file.write(view[done:])
        except OSError as error:
            self._move_to_memory(error)
            self._file.seek(start)
            self._file.write(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._file.tell() if size is None else size
        try:
            self._file.truncate(size)
        except OSError as error:
            self._move_to_memory(error)
            self._file.truncate(size)
        return size

    def flush(self) -> None:
        """Nothing is buffered here; the result folder flushes every file when it is complete."""

    def _move_to_memory(self, error: OSError) -> None:
        self.error = error
        self._file.seek(0)
        memory = io.BytesIO(self._file.read())
        self._file.close()
        self._file = memory
