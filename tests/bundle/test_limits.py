"""Every limit of a bundle, from both sides: the last value that is taken, and the first that is not.

The numbers are written out here: a limit that moves is a change of the format.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import load_bundle, onnx_scan
from stamp_deploy.bundle.adapter_weights import PARTS_KEY, read_parts
from stamp_deploy.bundle.adapters import pick, split
from stamp_deploy.bundle.json_schema import bundle_schema
from stamp_deploy.bundle.onnx_scan import scan
from stamp_deploy.bundle.reference import read_reference
from stamp_deploy.bundle.rules import number, relative_name, text, whole
from stamp_deploy.bundle.schema import validate
from stamp_deploy.bundle.signature import MAX_KEY_BYTES
from stamp_deploy.bundle.strict_json import parse_json
from stamp_deploy.bundle.validation_block import check_validation
from stamp_deploy.errors import BundleError, UsageError
from stamp_deploy.validation import QUANTILES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_bundle(tmp_path_factory.mktemp("b") / "bundle")
    return dict(json.loads((folder / "bundle.json").read_text()))


@pytest.fixture
def document(made: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(made)


def refused(check: Callable[..., Any], *arguments: Any, words: str = "") -> None:
    with pytest.raises(BundleError) as caught:
        check(*arguments)
    assert words in caught.value.cause and caught.value.remedy


def ends(place: str, low: Any, under: Any, high: Any, over: Any) -> tuple[Any, ...]:
    """A range of one value of the document: both ends are in it."""
    return place, (low, high), (under, over)


AGAINST_OTHERS = ("input_range.mpp",)
UP, DOWN = np.inf, -np.inf
RANGES = [
    ends("tile_px", 1, 0, 4096, 4097),
    ends("mpp", 0.05, np.nextafter(0.05, DOWN), 20.0, np.nextafter(20.0, UP)),
    ends("embedding_dim", 1, 0, 65_536, 65_537),
    ends("mean.0", 0.0, -1e-9, 1.0, 1 + 1e-9),
    ends("mean.2", 0, -1e-9, 1, 1 + 1e-9),
    ends("std.1", np.nextafter(1e-4, UP), 1e-4, 1.0, 1 + 1e-9),
    ends("tissue.min_fraction", 0.0, -1e-9, 1.0, 1 + 1e-9),
    ends("tissue.mask_mpp", 1.0, 1 - 1e-9, 64.0, 64 + 1e-9),
    ends("tissue.max_px", 256, 255, 8192, 8193),
    ends("tissue.blur_um", 0.0, -1e-9, 200.0, 200 + 1e-9),
    ends("tissue.close_um", 0.0, -1e-9, 1000.0, 1000 + 1e-9),
    ends("tissue.min_object_um", 0.0, -1e-9, 10_000.0, 10_000 + 1e-9),
    ends("tissue.min_hole_um", 0.0, -1e-9, 10_000.0, 10_000 + 1e-9),
    ends("tissue.of_later", -1e5, -1e5 - 1e-9, 1e5, 1e5 + 1e-9),
    ends("input_range.scores", [-1e9, 0], [-1.1e9, 0], [0, 1e9], [0, 1.1e9]),
    ends("input_range.mpp", [1e-9, 0.05], [1e-9, 0.049], [1, 40.0], [1, 40.01]),
    ends("heads.0.temperature", 1e-3, 0.999e-3, 1e3, 1001),
    ends("heads.0.thresholds.0", 0.0, -1e-9, 1.0, 1 + 1e-9),
    ends("heads.2.thresholds", [-1e6], [-1.1e6], [1e6], [1.1e6]),
    ends("heads.0.abstain", [0.0, 0.0], [-1e-9, 0.5], [1.0, 1.0], [0.5, 1 + 1e-9]),
    ends("files.card\\.md.size", 0, -1, 64 * 1024**3, 64 * 1024**3 + 1),
]


def put(document: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    *steps, last = (step.replace("\0", ".") for step in place.replace("\\.", "\0").split("."))
    inner: Any = document
    for step in steps:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[int(last) if isinstance(inner, list) else last] = value
    return document


@pytest.mark.parametrize(("place", "inside", "outside"), RANGES, ids=[row[0] for row in RANGES])
def test_both_ends_of_every_range(document: dict[str, Any], place: str, inside: Any, outside: Any) -> None:
    for value in inside:
        validate(put(copy.deepcopy(document), place, value))
    for value in outside:
        refused(validate, put(copy.deepcopy(document), place, value))


@pytest.fixture(scope="module")
def published() -> Any:
    return pytest.importorskip("jsonschema").Draft202012Validator(bundle_schema())


@pytest.mark.parametrize(("place", "inside", "outside"), RANGES, ids=[row[0] for row in RANGES])
def test_the_published_schema_has_the_same_ends(
    published: Any, document: dict[str, Any], place: str, inside: Any, outside: Any
) -> None:
    """But for what depends on another value: the two ends of a resolution, the kind of a head."""
    for value in inside:
        assert published.is_valid(put(copy.deepcopy(document), place, value)), value
    for value in outside if place not in AGAINST_OTHERS else ():
        assert not published.is_valid(put(copy.deepcopy(document), place, value)), value


def test_saturations_lie_in_0_to_1_and_may_be_one_number(document: dict[str, Any]) -> None:
    for low, high, fits in ((0.0, 1.0, True), (0.5, 0.5, True), (1.0, 1.0, True), (0.5, 0.4, False), (0, 1.1, False),
                            (-0.1, 0.5, False), (0.6, 0.5, False)):  # fmt: skip
        document["tissue"].update(min_saturation=low, max_saturation=high)
        if fits:
            validate(document)
        else:
            refused(validate, document, words="tissue rule")


def counted(document: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {**document, **change}


COUNTS: dict[str, tuple[Callable[[dict[str, Any], int], dict[str, Any]], int]] = {
    "pathways": (lambda d, n: counted(d, pathways=[f"P{i}" for i in range(n)]), 65_536),
    "files": (lambda d, n: counted(d, files=d["files"] | {
        f"more/{i}": {"sha256": "0" * 64, "size": 1} for i in range(n - len(d["files"]))
    }), 4096),
    "heads": (lambda d, n: counted(d, heads=[d["heads"][0] | {"name": f"h{i}"} for i in range(n)]), 256),
    "classes": (lambda d, n: counted(d, heads=[
        d["heads"][1] | {"classes": [f"c{i}" for i in range(n)], "thresholds": []}
    ]), 1024),
    "cuts of a hazard": (lambda d, n: counted(d, heads=[
        d["heads"][2] | {"classes": [], "thresholds": [float(i) for i in range(n)]}
    ]), 1024),
    "twins": (lambda d, n: counted(d, **twins(d, n)), 16),
    "engines of a twin": (lambda d, n: counted(d, **twins(d, 1, engines=[f"e{i}" for i in range(n)])), 16),
    "letters of a name": (lambda d, n: counted(d, name="a" * n), 128),
    "letters of a head's name": (lambda d, n: counted(d, heads=[d["heads"][0] | {"name": "a" * n}]), 128),
    "letters of a pathway": (lambda d, n: counted(d, pathways=["a" * n]), 200),
    "letters of a licence": (lambda d, n: counted(d, pfm=d["pfm"] | {"licence": "a" * n}), 1000),
    "letters of an engine": (lambda d, n: counted(d, **twins(d, 1, engines=["a" * n])), 64),
    "letters of a way": (lambda d, n: counted(d, **twins(d, 1, way="a" * n)), 200),
    "trained on": (lambda d, n: counted(d, pfm=d["pfm"] | {"trained_on": [f"t{i}" for i in range(n)]}), 16),
}  # fmt: skip


def twins(document: dict[str, Any], count: int, **other: Any) -> dict[str, Any]:
    names = [f"twin{i}.onnx" for i in range(count)]
    listed = document["files"] | {name: {"sha256": "0" * 64, "size": 1} for name in names}
    value = {"precision": "int8", "by_default": False, "way": "x", "parity": {}}
    return {
        "files": listed,
        "twins": [{"file": name, "engines": [f"e{i}"], **value, **other} for i, name in enumerate(names)],
    }


@pytest.mark.parametrize("what", COUNTS)
def test_how_many_there_may_be(document: dict[str, Any], what: str) -> None:
    build, most = COUNTS[what]
    validate(build(document, most))
    refused(validate, build(document, most + 1))


@pytest.mark.parametrize("what", COUNTS)
def test_the_published_schema_counts_the_same(published: Any, document: dict[str, Any], what: str) -> None:
    build, most = COUNTS[what]
    assert published.is_valid(build(document, most))
    assert not published.is_valid(build(document, most + 1))


def test_names_of_files() -> None:
    for good in ("a", "_a", "a" * 201, "/".join(["a" * 100] * 5), "heads/x-1.2+3_4.onnx", "a" * 201 + "/" + "b" * 201):
        assert relative_name(good) == good
    longest = "/".join(["a" * 127] * 4) + "z"
    assert len(longest) == 512 and relative_name(longest) == longest
    wrong: tuple[Any, ...] = ("", "a" * 202, longest + "z", "-a", ".a", "+a", "a//b", "a/", "/a", "..", 3, None)
    for bad in wrong:
        refused(relative_name, bad, words="file name")


def test_a_sentence_ends_without_a_blank() -> None:
    assert text("a b", "x") == "a b" and text("a" * 7, "x", 7)
    for bad in ("", " a", "a ", "a\t", "a\x00", None, 3, ["a"]):
        refused(text, bad, "x", words="printable text")


def test_numbers_are_neither_truth_nor_words() -> None:
    assert number(1, "x", 1, 1) == 1.0 and isinstance(number(1, "x", 0, 2), float) and whole(5, "x", 5, 5) == 5
    for bad in (True, False, None, "1", [1]):
        refused(number, bad, "x", 0, 2, words="not a finite number")
        refused(whole, bad, "x", 0, 2, words="x must be 0 to 2")
    refused(whole, 1.0, "x", 0, 2)
    for bad in (float("nan"), float("inf"), -0.001, 2.001):
        refused(number, bad, "x", 0, 2, words="must be 0 to 2")


def test_how_long_a_number_and_a_document_may_be() -> None:
    assert parse_json(b'{"a": ' + b"1" * 32 + b', "b": 0.' + b"1" * 62 + b"}")["a"] == int("1" * 32)
    refused(parse_json, b'{"a": ' + b"1" * 33 + b"}", words="33 digits")
    refused(parse_json, b'{"a": 0.' + b"1" * 63 + b"}", words="65 characters")
    assert parse_json(b"{}" + b" " * (16 * 1024**2 - 2)) == {}
    refused(parse_json, b"{}" + b" " * (16 * 1024**2 - 1), words="16777217 bytes, more than the 16777216 allowed")


# What was measured


def entry(**other: Any) -> dict[str, Any]:
    value: dict[str, Any] = dict.fromkeys(
        ("r", "r_low", "r_high", "frozen_r", "random_sets_r", "features_r", "depth_r", "global_r", "predictions",
         "targets", "global_predictions", "scale", "scale_global")
    )  # fmt: skip
    return {"name": "P", "sections": 0, "patients": 0, **value, **other}


def measured(**other: Any) -> dict[str, Any]:
    return {"unit": "z", "interval_over": None, "lacks": [], "pathways": [entry(**other)]}


CORRELATIONS = ("frozen_r", "random_sets_r", "features_r", "depth_r", "global_r")


@pytest.mark.parametrize("key", CORRELATIONS)
def test_a_correlation_lies_between_minus_1_and_1(key: str) -> None:
    for good in (-1, 1, 0.0, None):
        check_validation(measured(**{key: good}), ["P"])
    for bad in (-1.0001, 1.0001, "0.5", True):
        refused(check_validation, measured(**{key: bad}), ["P"], words=f"{key} of 'P'")


def test_the_interval_of_r() -> None:
    fits = [(None, None, None, 0), (0.5, None, None, 1), (0.5, 0.5, 0.5, 1), (0.5, -1, 1, 1), (None, None, None, 9)]
    breaks = [(0.5, None, None, 0), (0.5, 0.4, None, 1), (0.5, None, 0.6, 1), (None, 0.4, 0.6, 1), (0.5, 0.6, 0.4, 1),
              (0.5, -1.01, 1, 1), (0.5, 0, 1.01, 1)]  # fmt: skip
    for r, low, high, sections in fits:
        check_validation(measured(r=r, r_low=low, r_high=high, sections=sections), ["P"])
    for r, low, high, sections in breaks:
        refused(check_validation, measured(r=r, r_low=low, r_high=high, sections=sections), ["P"], words="'P'")


def rising(*changes: tuple[str, float]) -> dict[str, float]:
    return {name: float(at) for at, name in enumerate(QUANTILES)} | dict(changes)


@pytest.mark.parametrize("key", ["predictions", "targets", "global_predictions"])
def test_quantiles_ascend_and_stay_within_a_thousand_million(key: str) -> None:
    for good in (rising(), rising(("min", -1e9), ("max", 1e9)), rising(("p01", 0.0)), None):
        check_validation(measured(**{key: good}), ["P"])
    for bad in (
        rising(("min", -1.1e9)), rising(("max", 1.1e9)), rising(("p50", 9.0)), rising(("min", 0.5), ("p01", 0.4)),
        rising(("more", 9.0)), {}, [],
    ):  # fmt: skip
        refused(check_validation, measured(**{key: bad}), ["P"], words=f"{key} of 'P'")


@pytest.mark.parametrize("key", ["scale", "scale_global"])
def test_a_scale_has_a_spread(key: str) -> None:
    for centre, spread in ((-1e9, 1e-9), (1e9, 1e9)):
        check_validation(measured(**{key: {"centre": centre, "spread": spread}}), ["P"])
    for centre, spread in ((-1.1e9, 1), (1.1e9, 1), (0, 0.9e-9), (0, 1.1e9), (0, -1)):
        refused(check_validation, measured(**{key: {"centre": centre, "spread": spread}}), ["P"], words=f"{key} of 'P'")


def test_counts_and_sentences_of_what_was_measured() -> None:
    for key in ("sections", "patients"):
        check_validation(measured(**{key: 10**9}), ["P"])
        for bad in (-1, 10**9 + 1, 1.0, True, None):
            refused(check_validation, measured(**{key: bad}), ["P"], words=f"{key} of 'P'")
    check_validation(measured() | {"lacks": ["a" * 1000] * 64}, ["P"])
    refused(check_validation, measured() | {"lacks": ["a"] * 65}, ["P"], words="at most 64 sentences")
    refused(check_validation, measured() | {"lacks": ["a" * 1001]}, ["P"], words="longer than 1000")
    for over in ("patients", "sections", "blocks", None):
        check_validation(measured() | {"interval_over": over}, ["P"])


# The reference of what the model knows


def reference() -> dict[str, Any]:
    return {
        "schema": "stamp-deploy/trust/1", "mpp": 0.5, "tile_px": 64, "left_out_by": "patient", "groups": 2, "tiles": 9,
        "statistics": {"centre": [1.0, 2.0], "spread": [1.0, 1.0], "whiten": [[1.0, 0.0], [0.0, 1.0]],
                       "distances": [float(i) for i in range(101)], "median": 3.0},
        "limits": {"low": [0.0, 0.0, 0.0], "high": [1.0, 1.0, 1.0]},
        "embedding": {"centre": [0.0] * 4, "whiten": [[1.0]] * 4, "median": 2.0, "tiles": 9},
    }  # fmt: skip


def read(value: dict[str, Any]) -> Any:
    return read_reference(json.dumps(value).encode(), mpp=0.5, tile_px=64, embedding_dim=4)


REFERENCE = [
    ends("groups", 1, 0, 1_000_000, 1_000_001),
    ends("tiles", 1, 0, 1_000_000_000, 1_000_000_001),
    ends("statistics.median", 1e-6, 0.9e-6, 1e6, 1.1e6),
    ends("statistics.centre.1", -1e6, -1.1e6, 1e6, 1.1e6),
    ends("statistics.spread.0", 1e-12, 0.0, 1e6, -1.0),
    ends("statistics.distances.0", 0.0, -1e-9, 1.0, 1 + 1e-9),  # the next is 1
    ends("statistics.distances.100", 99.0, 98.9, 1e6, 1.1e6),
    ends("limits.low.2", -1e6, -1.1e6, 1.0, 1 + 1e-9),
    ends("limits.high.0", 0.0, -1e-9, 1e6, 1.1e6),
    ends("embedding.median", 1e-6, 0.9e-6, 1e6, 1.1e6),
    ends("embedding.tiles", 1, 0, 1_000_000_000, 1_000_000_001),
    ends("embedding.whiten", [[1.0]] * 4, [[1.0]] * 3, [[1.0] * 64] * 4, [[1.0] * 65] * 4),
    ends("embedding.centre", [0] * 4, [0.0] * 3, [-1e6] * 4, [0.0] * 5),
]


@pytest.mark.parametrize(("place", "inside", "outside"), REFERENCE, ids=[row[0] for row in REFERENCE])
def test_both_ends_of_what_a_reference_holds(place: str, inside: Any, outside: Any) -> None:
    for value in inside:
        read(put(reference(), place, value))
    for value in outside:
        refused(read, put(reference(), place, value))


def test_a_reference_is_read_into_its_own_fields() -> None:
    found = read(reference())
    assert (found.mpp, found.tile_px, found.left_out_by, found.groups, found.tiles) == (0.5, 64, "patient", 2, 9)
    assert found.centre.tolist() == [1, 2] and found.spread.tolist() == [1, 1] and found.median == 3
    assert found.whiten.tolist() == [[1, 0], [0, 1]] and found.distances.tolist() == list(range(101))
    assert found.low.tolist() == [0, 0, 0] and found.high.tolist() == [1, 1, 1]
    assert found.embedding.whiten.tolist() == [[1]] * 4 and (found.embedding.median, found.embedding.tiles) == (2, 9)
    assert json.loads(found.to_json()) == reference()
    assert json.loads(read(reference() | {"embedding": None}).to_json()) == reference() | {"embedding": None}


def test_a_reference_keeps_seven_digits() -> None:
    found = json.loads(read(put(reference(), "statistics.centre.0", 1.23456789)).to_json())
    assert found["statistics"]["centre"][0] == 1.234568


# Adapters


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


def without_one(value: dict[str, Any]) -> list[dict[str, Any]]:
    """All that have a key less, one more, and another instead."""
    less = [{k: v for k, v in value.items() if k != key} for key in value]
    return [*less, {**value, "more": 1}, *({**one, "other": 1} for one in less), {}]


def test_records_hold_their_keys_and_no_others(document: dict[str, Any]) -> None:
    for entry_ in without_one(document["files"]["card.md"]):
        refused(validate, document | {"files": document["files"] | {"card.md": entry_}}, words="sha256 and size")
    good = twins(document, 1)
    for one in without_one(good["twins"][0]):
        refused(validate, document | good | {"twins": [one]}, words="a twin must hold by_default, engines, file")
    for one in without_one({"file": "a0/w", "base": "base"}):
        refused(split, shared(1, adapters={"a0": {"weights": one}}), words="must name 'file' and 'base'")
    for one in without_one({"centre": 0.0, "spread": 1.0}):
        refused(check_validation, measured(scale=one), ["P"], words="must hold centre and spread")
    for one in without_one(rising()):
        refused(check_validation, measured(targets=one), ["P"], words="must hold the quantiles")
    for place in ("", "statistics", "limits", "embedding"):
        value = reference()
        for one in without_one(value[place] if place else value):
            refused(read, {**value, place: one} if place else one)


def test_the_outputs_that_there_may_be_are_named(document: dict[str, Any]) -> None:
    validate(document | {"outputs": ["embedding", "pathways", "pathways_global"]})
    refused(
        validate, document | {"outputs": ["pathways"]},
        words="'outputs' must be embedding, pathways and may end with pathways_global",
    )  # fmt: skip


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


# The walk over ONNX bytes


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


def test_a_key_of_64_kib_is_read(tmp_path: Path) -> None:
    assert MAX_KEY_BYTES == 65_536
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from stamp_deploy.bundle.signature import sign_bundle

    key, folder = Ed25519PrivateKey.generate(), make_bundle(tmp_path / "bundle")
    pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    (tmp_path / "key").write_bytes(b"\n" * (65_536 - len(pem)) + pem)
    sign_bundle(folder, tmp_path / "key")
    public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "pub").write_bytes(public)
    assert load_bundle(folder, require_signature=tmp_path / "pub").name == "factory-bundle"
    (tmp_path / "key").write_bytes(b"\n" * 65_536 + pem)
    with pytest.raises(UsageError, match="not an unencrypted PEM private key"):
        sign_bundle(folder, tmp_path / "key")
