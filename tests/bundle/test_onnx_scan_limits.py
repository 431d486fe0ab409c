"""Limits of the walk over ONNX bytes, from both sides.

The numbers are written out here: a limit that moves is a change of the format.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundle_limits import refused

from stamp_deploy.bundle import onnx_scan
from stamp_deploy.bundle.onnx_scan import scan


def field(number: int, payload: bytes) -> bytes:
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


GRAPH = field(11, field(1, b"x")) + field(12, field(1, b"y"))


def test_a_number_has_ten_bytes_at_most() -> None:
    for filled, fits in ((9, True), (10, False)):
        data = field(7, GRAPH) + b"\x08" + b"\x80" * filled + b"\x01"
        if fits:
            assert list(scan(data, Path("x")).inputs) == ["x"]
        else:
            refused(scan, data, Path("x"), words="cut off")


def test_numbers_are_put_together_in_sevens() -> None:
    opset = field(1, b"") + b"\x10\xac\x02"  # 300
    assert scan(field(7, GRAPH) + field(8, opset), Path("x")).opset == 300


def test_a_message_lies_32_deep_and_no_deeper() -> None:
    """Each branch of a node is three messages further down: graph, node, attribute."""
    from onnx import helper

    def nested(levels: int) -> bytes:
        inner = helper.make_graph([], "last", [], [])
        for _ in range(levels):
            node = helper.make_node("If", [], [])
            node.attribute.add(name="a", type=5).g.CopyFrom(inner)
            inner = helper.make_graph([node], "g", [], [])
        for name, side in (("x", inner.input), ("y", inner.output)):
            side.add(name=name)
        return bytes(helper.make_model(inner).SerializeToString())

    assert scan(nested(10), Path("x")).branching == {"If"}  # the last graph is at 1 + 3 * 10
    refused(scan, nested(11), Path("x"), words="nested too deeply")
    assert onnx_scan.MAX_DEPTH == 32 and onnx_scan.MAX_MESSAGES == 4_000_000


def test_the_last_message_that_is_walked_over(monkeypatch: pytest.MonkeyPatch) -> None:
    data = field(7, field(1, b"") + field(1, b"") + GRAPH)  # a model, a graph, two nodes
    monkeypatch.setattr(onnx_scan, "MAX_MESSAGES", 4)
    scan(data, Path("x"))
    monkeypatch.setattr(onnx_scan, "MAX_MESSAGES", 3)
    refused(scan, data, Path("x"), words="too large")


def test_dimensions_are_numbers_or_names_or_unknown() -> None:
    dims = field(1, b"\x08\x05") + field(1, field(2, b"n")) + field(1, b"")
    kinds = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 10: "float16", 16: "bfloat16", 3: "type 3"}
    for code, name in kinds.items():
        tensor = field(1, b"\x08" + bytes([code]) + field(2, dims))
        graph = field(11, field(1, b"x") + field(2, tensor)) + field(12, field(1, b"y"))
        facts = scan(field(7, graph), Path("x"))
        assert (facts.inputs["x"].dtype, facts.inputs["x"].shape) == (name, (5, "n", None))
        assert (facts.outputs["y"].dtype, facts.outputs["y"].shape) == ("", None)


def noise(*, but: tuple[tuple[int, int], ...]) -> bytes:
    """Fields that say nothing: every number below 31 as a varint and as bytes, but those that are read."""
    found = b""
    for number_ in range(1, 31):
        if (number_, 0) not in but:
            found += varint(number_ << 3) + b"\x05"
        if (number_, 2) not in but:
            found += varint(number_ << 3 | 2) + b"\x02zz"
    return found


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])


def long_field(number_: int, payload: bytes) -> bytes:
    assert len(payload) < 1 << 14
    return varint(number_ << 3 | 2) + varint(len(payload)) + payload


def test_fields_of_another_number_or_kind_say_nothing() -> None:
    def model(noisy: bool) -> bytes:
        def with_noise(payload: bytes, *read: tuple[int, int]) -> bytes:
            extra = noise(but=read) if noisy else b""
            return extra + payload + extra

        size = with_noise(b"\x08\x05", (1, 0), (2, 2))
        letter = with_noise(field(2, b"n"), (1, 0), (2, 2))
        shape = with_noise(long_field(1, size) + long_field(1, letter), (1, 2))
        tensor = with_noise(b"\x08\x02" + long_field(2, shape), (1, 0), (2, 2))
        kind = with_noise(long_field(1, tensor), (1, 2))
        info = with_noise(field(1, b"x") + long_field(2, kind), (1, 2), (2, 2))
        graph = long_field(11, info) + field(12, field(1, b"y"))
        opset = with_noise(field(1, b"") + b"\x10\x14", (1, 2), (2, 0))
        entry = long_field(13, with_noise(field(1, b"location") + field(2, b"w.bin"), (1, 2), (2, 2)))
        other = b"\x38\x05\x40\x05" if noisy else b""  # 7 and 8 as varints
        fixed = b"".join(
            varint(n << 3 | 5) + b"\x0a\x02zz" + varint(n << 3 | 1) + b"\x0a\x06zzzzzz" for n in range(1, 31)
        )
        wide = fixed if noisy else b""  # every number as 4 and as 8 bytes, which look like messages
        node = long_field(1, wide + field(4, b"Abs") + long_field(5, wide))
        weights = long_field(5, wide + entry + (b"\x68\x05" if noisy else b""))  # 13 as a varint, too
        return wide + long_field(7, wide + graph + node + weights) + long_field(8, opset) + other

    plain, noisy = (scan(model(noisy), Path("x")) for noisy in (False, True))
    assert plain == noisy
    assert plain.inputs["x"].shape == (5, "n") and plain.inputs["x"].dtype == "uint8" and plain.opset == 20
    assert [item.location for item in plain.external] == ["w.bin"] and plain.external[0].length is None
