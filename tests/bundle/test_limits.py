"""Every limit of bundle.json, from both sides: the last value that is taken, and the first that is not.

The numbers are written out here: a limit that moves is a change of the format.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundle_factory import make_bundle
from support.bundle_limits import ends, put, refused, without_one

from stamp_deploy.bundle import load_bundle
from stamp_deploy.bundle.json_schema import bundle_schema
from stamp_deploy.bundle.rules import number, relative_name, text, whole
from stamp_deploy.bundle.schema import validate
from stamp_deploy.bundle.signature import MAX_KEY_BYTES
from stamp_deploy.bundle.strict_json import parse_json
from stamp_deploy.errors import UsageError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_bundle(tmp_path_factory.mktemp("b") / "bundle")
    return dict(json.loads((folder / "bundle.json").read_text()))


@pytest.fixture
def document(made: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(made)


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


def test_records_hold_their_keys_and_no_others(document: dict[str, Any]) -> None:
    for entry_ in without_one(document["files"]["card.md"]):
        refused(validate, document | {"files": document["files"] | {"card.md": entry_}}, words="sha256 and size")
    good = twins(document, 1)
    for one in without_one(good["twins"][0]):
        refused(validate, document | good | {"twins": [one]}, words="a twin must hold by_default, engines, file")


def test_the_outputs_that_there_may_be_are_named(document: dict[str, Any]) -> None:
    validate(document | {"outputs": ["embedding", "pathways", "pathways_global"]})
    refused(
        validate, document | {"outputs": ["pathways"]},
        words="'outputs' must be embedding, pathways and may end with pathways_global",
    )  # fmt: skip


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
