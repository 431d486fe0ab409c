"""Files of a bundle, read once: the bytes whose hash was checked are the bytes that are used.

A path can point at other bytes a moment after it was hashed. So whatever is parsed, by us or by a runtime, is read into
memory here, held against the size and the SHA-256 in bundle.json, and handed over as bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ..errors import BundleError, DiskError
from .adapter_weights import MergedFile, Part, merge, read_parts
from .onnx_scan import OnnxFacts, check_external, scan
from .rules import REMEDY

MAX_ONNX_BYTES = 2**31
"""A protobuf message ends there; larger weights lie in a file beside the graph."""


@dataclass(frozen=True)
class OnnxBytes:
    """An ONNX model as it was hashed.

    Attributes
    ----------
    path : Path
        Where it was read; for messages only.
    graph : bytes
        The ONNX file.
    data : dict of str to bytes
        The files that hold its large tensors, by the location that the graph states.
    facts : OnnxFacts
        What the walk over the graph found.
    """

    path: Path
    graph: bytes
    facts: OnnxFacts
    data: dict[str, bytes] = field(default_factory=dict)

    @contextmanager
    def snapshot(self) -> Iterator[Path]:
        """The model as files in a private folder, for libraries that read large tensors from a path only.

        Raises
        ------
        DiskError
            The copy cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="stamp-model-") as folder:
            path = Path(folder, self.path.name)
            try:
                path.write_bytes(self.graph)
                for location, data in self.data.items():
                    Path(folder, location).parent.mkdir(parents=True, exist_ok=True)
                    Path(folder, location).write_bytes(data)
            except OSError as error:
                raise DiskError(
                    f"the model cannot be copied to a temporary folder: {error.strerror}",
                    path=self.path,
                    remedy="free some space, or name another folder with TMPDIR",
                ) from error
            yield path


def read_listed(folder: Path, name: str, entry: dict[str, Any]) -> bytes:
    """The bytes of a file of the bundle, held against its entry in bundle.json (`size` in bytes, `sha256`).

    Raises
    ------
    BundleError
        The file is not the one that bundle.json lists.
    """
    with _opened(folder, name, entry) as handle:
        data = handle.read(entry["size"] + 1)
    if len(data) != entry["size"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
        _changed(folder, name)
    return data


def check_listed(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """`read_listed` for files of any size, without keeping the bytes."""
    with _opened(folder, name, entry) as handle:
        if hashlib.file_digest(handle, "sha256").hexdigest() != entry["sha256"]:
            _changed(folder, name)


def read_onnx(
    folder: Path,
    name: str,
    files: dict[str, dict[str, Any]],
    *,
    with_data: bool = True,
    merged: MergedFile | None = None,
) -> OnnxBytes:
    """An ONNX file of the bundle, walked over, with the files of its large tensors unless `with_data` is False.

    `merged` is the file in memory that holds the tensors which an adapter changes, where the graph names one.

    Raises
    ------
    BundleError
        A file is not the one that bundle.json lists, or the graph is not allowed (see `onnx_scan`).
    """
    path = folder / name
    if files[name]["size"] >= MAX_ONNX_BYTES:
        raise BundleError("the ONNX file is larger than a protobuf message can be", path=path, remedy=REMEDY)
    graph = read_listed(folder, name, files[name])
    facts = scan(graph, path)
    listed = {folder / other: entry["size"] for other, entry in files.items()}
    parts: tuple[Part, ...] = ()
    if merged is not None:
        parts = read_parts(read_listed(folder, merged.file, files[merged.file]), files[merged.base]["size"])
        listed[path.parent / merged.location] = sum(part.size for part in parts)
    check_external(path, facts, listed)
    data: dict[str, bytes] = {}
    for item in facts.external if with_data else []:
        if merged is not None and item.location == merged.location:
            continue
        if item.location not in data:
            other = (path.parent / item.location).relative_to(folder).as_posix()
            data[item.location] = read_listed(folder, other, files[other])
    if merged is not None and with_data:
        base = data.get(merged.base) or read_listed(folder, merged.base, files[merged.base])
        data[merged.location] = merge(parts, base)
    return OnnxBytes(path, graph, facts, data)


def _opened(folder: Path, name: str, entry: dict[str, Any]) -> io.BufferedReader:
    """The file, opened without following a link or waiting for a pipe, and of the size that is listed."""
    try:
        number = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BundleError(f"{name!r} cannot be read: {error.strerror}", path=folder, remedy=REMEDY) from error
    facts = os.fstat(number)
    if not stat.S_ISREG(facts.st_mode) or facts.st_size != entry["size"]:
        os.close(number)
        _changed(folder, name)
    return os.fdopen(number, "rb")


def _changed(folder: Path, name: str) -> NoReturn:
    raise BundleError(f"{name!r} has been changed: its SHA-256 is not the recorded one", path=folder, remedy=REMEDY)
