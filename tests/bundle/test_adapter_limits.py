"""Limits of adapters and of their weights, from both sides.

The numbers are written out here: a limit that moves is a change of the format.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from support.bundle_limits import refused, without_one

from stamp_deploy.bundle.adapter_weights import PARTS_KEY, read_parts
from stamp_deploy.bundle.adapters import pick, split
from stamp_deploy.errors import UsageError


def shared(count: int, **other: Any) -> dict[str, Any]:
    names = [f"a{i}" for i in range(count)]
    weights = {f"{name}/w": {"sha256": "0" * 64, "size": 1} for name in names}
    return {
        "schema_version": 2, "name": "n", "files": weights | {"base": {"sha256": "0" * 64, "size": 1}},
        "adapters": {name: {"weights": {"file": f"{name}/w", "base": "base"}} for name in names}, **other,
    }  # fmt: skip


def test_how_many_adapters_there_may_be() -> None:
    assert len(split(shared(256))) == 256 and list(split(shared(1))) == ["a0"]
    for count in (0, 257):
        refused(split, shared(count), words="1 to 256")


def test_an_adapter_is_itself_whichever_others_there_are() -> None:
    both, one = split(shared(2)), split(shared(1))
    assert both["a0"].sha256 == one["a0"].sha256 != both["a1"].sha256
    assert set(both["a0"].document["files"]) == {"a0/w", "base"} and both["a0"].document["name"] == "n-a0"
    assert (both["a1"].merged.location, both["a1"].merged.file, both["a1"].merged.base) == ("a1.merged", "a1/w", "base")
    assert pick(one, None) == "a0" and pick(both, "a1") == "a1"
    for name, words in ((None, "holds several adapters: a0, a1"), ("b", "no adapter 'b'")):
        with pytest.raises(UsageError) as caught:
            pick(both, name)
        assert words in caught.value.cause and caught.value.remedy


def weights(listed: list[Any], tensors: dict[str, Any]) -> bytes:
    """A safetensors file, written by hand so that it can be wrong."""
    header: dict[str, Any] = {"__metadata__": {PARTS_KEY: json.dumps({"tensors": listed})}}
    data = b""
    for name, shape in tensors.items():
        size = int(np.prod(shape)) * 4
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + size]}
        data += np.arange(size // 4, dtype=np.float32).tobytes()
    line = json.dumps(header).encode()
    return struct.pack("<Q", len(line)) + line + data


def test_a_low_rank_change_ends_where_the_shared_weights_end() -> None:
    listed, factors = [{"shape": [3, 2], "start": 8}], {"0.a": (3, 1), "0.b": (1, 2)}
    (part,) = read_parts(weights(listed, factors), 32)
    assert (part.shape, part.start, part.size) == ((3, 2), 8, 24)
    assert [array.shape for array in part.arrays] == [(3, 1), (1, 2)] and part.arrays[1].tolist() == [[0, 1]]
    for size in (31, 28, 8):
        refused(read_parts, weights(listed, factors), size, words="outside the shared weights")
    refused(read_parts, weights(listed, factors), 7, words="place of a changed tensor must be 0 to 7")
    for start in (1, 2, 3):
        refused(read_parts, weights([{"shape": [3, 2], "start": start}], factors), 64, words="outside the shared")


def test_the_rank_and_the_axes_of_a_change() -> None:
    for rank, fits in ((4096, True), (4097, False)):
        data = weights([{"shape": [1, 1], "start": 0}], {"0.a": (1, rank), "0.b": (rank, 1)})
        if fits:
            assert read_parts(data, 4)[0].arrays[0].shape == (1, 4096)
        else:
            refused(read_parts, data, 4, words="outside the shared weights")
    assert read_parts(weights([{"shape": [1] * 8}], {"0.full": (1,) * 8}), 0)[0].shape == (1,) * 8
    for axes in (0, 9):
        refused(read_parts, weights([{"shape": [1] * axes}], {"0.full": (1,)}), 0, words="has no shape")
        refused(read_parts, weights([{"shape": [1]}], {"0.full": (1,) * axes}), 0, words="no shape or no place")
    for a, b in (((3, 1), (2, 2)), ((2, 1), (1, 2)), ((3, 1), (1, 3))):
        data = weights([{"shape": [3, 2], "start": 0}], {"0.a": a, "0.b": b})
        refused(read_parts, data, 99, words="does not fit its shape")


@pytest.mark.parametrize("key", ["data_offsets", "shape"])
@pytest.mark.parametrize("value", [[], [0], [0, 4, 4], [1] * 9, None, 4, "04"])
def test_a_tensor_says_its_shape_and_where_it_begins_and_ends(key: str, value: Any) -> None:
    header = {
        "__metadata__": {PARTS_KEY: json.dumps({"tensors": [{"shape": [1]}]})},
        "0.full": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], key: value},
    }
    line = json.dumps(header).encode()
    refused(read_parts, struct.pack("<Q", len(line)) + line + bytes(4), 0)


def test_changes_hold_no_more_than_both_files_do() -> None:
    data = weights(
        [{"shape": [400, 400], "start": 0}] * 2,
        {f"{i}.{k}": shape for i in range(2) for k, shape in (("a", (400, 1)), ("b", (1, 400)))},
    )
    most = 2 * 400 * 400 * 4
    assert sum(part.size for part in read_parts(data, most - len(data))) == most
    refused(read_parts, data, most - len(data) - 1, words="change more than there is")


def test_records_hold_their_keys_and_no_others() -> None:
    for one in without_one({"file": "a0/w", "base": "base"}):
        refused(split, shared(1, adapters={"a0": {"weights": one}}), words="must name 'file' and 'base'")
