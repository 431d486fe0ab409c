"""The weights of one adapter on a shared base: which tensors of the encoder it changes, and by what.

An adapter's encoder is a graph whose unchanged tensors lie in the file that all adapters share. The tensors that it
changes lie in a file that exists in memory alone; it is put together here from the shared file and the adapter's own:

    changed tensor = shared tensor [m, n] + a [m, r] @ b [r, n]        a low-rank change, as of LoRA
    changed tensor = the adapter's own tensor                          anything else, as a head

The adapter's file is in safetensors: a JSON header and float32 data. Its metadata lists the tensors in the order in
which they lie in the file in memory. Every number in it is held to the sizes of the two files.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rules import fail, whole
from .strict_json import MAX_JSON_BYTES, parse_json

PARTS_KEY = "changed"
"""The entry of the metadata that lists the changed tensors."""
MAX_PARTS = 100_000
MAX_RANK = 4096
_PREFIX = 8
_ITEM = 4


@dataclass(frozen=True)
class MergedFile:
    """A file in memory that an adapter's graph names.

    Attributes
    ----------
    location : str
        Its name, which no file of the bundle has.
    file : str
        The adapter's own weights.
    base : str
        The weights that adapters share.
    """

    location: str
    file: str
    base: str


@dataclass(frozen=True)
class Part:
    """One changed tensor, float32. `start` is its first byte in the shared file, for a low-rank change."""

    shape: tuple[int, ...]
    start: int | None
    arrays: tuple[NDArray[np.float32], ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return prod(self.shape) * _ITEM


def read_parts(data: bytes, base_bytes: int) -> tuple[Part, ...]:
    """The changed tensors of an adapter's file, checked.

    Raises
    ------
    BundleError
        The file is malformed, or changes more than the shared file holds.
    """
    if len(data) < _PREFIX:
        fail("the adapter's weights are no safetensors file")
    end = _PREFIX + int.from_bytes(data[:_PREFIX], "little")
    if not _PREFIX < end <= min(len(data), MAX_JSON_BYTES):
        fail("the header of the adapter's weights is longer than the file, or than is allowed")
    header = parse_json(data[_PREFIX:end], "the header of the adapter's weights")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(PARTS_KEY), str):
        fail("the adapter's weights do not list what they change")
    listed = parse_json(metadata[PARTS_KEY].encode(), "the list of changed tensors").get("tensors")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_PARTS:
        fail(f"the adapter's weights must change 1 to {MAX_PARTS} tensors")
    tensors = {name: _tensor(name, entry, data, end) for name, entry in header.items()}
    parts = tuple(_part(number, entry, tensors, base_bytes) for number, entry in enumerate(listed))
    if tensors:
        fail("the adapter's weights hold a tensor that is not listed")
    if sum(part.size for part in parts) > base_bytes + len(data):
        fail("the adapter's weights change more than there is")
    return parts


def merge(parts: tuple[Part, ...], base: bytes) -> bytes:
    """The changed tensors, one after the other."""
    merged = bytearray(sum(part.size for part in parts))
    first = 0
    for part in parts:
        target = np.frombuffer(merged, np.float32, prod(part.shape), first).reshape(part.shape)
        if part.start is None:
            target[...] = part.arrays[0]
        else:
            first_factor, second_factor = part.arrays
            np.matmul(first_factor, second_factor, out=target)
            target += np.frombuffer(base, np.float32, prod(part.shape), part.start).reshape(part.shape)
        first += part.size
    return bytes(merged)


def _tensor(name: str, entry: Any, data: bytes, first: int) -> NDArray[np.float32]:
    """A tensor of the safetensors file."""
    if not isinstance(entry, dict) or entry.get("dtype") != "F32":
        fail(f"the adapter's tensor {name[:60]!r} is not float32")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not 1 <= len(shape) <= 8 or not isinstance(offsets, list) or len(offsets) != 2:
        fail(f"the adapter's tensor {name[:60]!r} has no shape or no place")
    dims = tuple(whole(dim, "a dimension of an adapter's tensor", 1, 2**31) for dim in shape)
    start, end = (whole(value, "the place of an adapter's tensor", 0, len(data) - first) for value in offsets)
    if end - start != prod(dims) * _ITEM:
        fail(f"the adapter's tensor {name[:60]!r} is not as large as its shape")
    values = np.frombuffer(data, np.float32, prod(dims), first + start).reshape(dims)
    if not np.isfinite(values).all():
        fail(f"the adapter's tensor {name[:60]!r} holds values that are not finite")
    return values


def _part(number: int, entry: Any, tensors: dict[str, NDArray[np.float32]], base_bytes: int) -> Part:
    """A changed tensor; takes what it uses out of `tensors`."""
    if not isinstance(entry, dict) or set(entry) not in ({"shape"}, {"shape", "start"}):
        fail("a changed tensor must hold its shape, and its place in the shared file where it is low-rank")
    if not isinstance(entry["shape"], list) or not 1 <= len(entry["shape"]) <= 8:
        fail("a changed tensor has no shape")
    shape = tuple(whole(dim, "a dimension of a changed tensor", 1, 2**31) for dim in entry["shape"])
    names = (f"{number}.full",) if "start" not in entry else (f"{number}.a", f"{number}.b")
    found = [tensors.pop(name, None) for name in names]
    arrays = tuple(values for values in found if values is not None)
    if len(arrays) != len(names):
        fail(f"the adapter's weights lack what changes tensor {number}")
    if "start" not in entry:
        if arrays[0].shape != shape:
            fail(f"the adapter's tensor {number} has another shape than it changes")
        return Part(shape, None, arrays)
    start = whole(entry["start"], "the place of a changed tensor", 0, base_bytes)
    rank = arrays[0].shape[-1]
    if len(shape) != 2 or arrays[0].shape != (shape[0], rank) or arrays[1].shape != (rank, shape[1]):
        fail(f"the low-rank change of tensor {number} does not fit its shape")
    if rank > MAX_RANK or start % _ITEM or start + prod(shape) * _ITEM > base_bytes:
        fail(f"the low-rank change of tensor {number} lies outside the shared weights")
    return Part(shape, start, arrays)
