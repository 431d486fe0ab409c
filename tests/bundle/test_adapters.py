"""A bundle with several adapters: what its bundle.json and its weights may be, and how each breach is refused."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import jsonschema
import numpy as np
import pytest

pytest.importorskip("torch", reason="adapters are exported with torch")
safetensors = pytest.importorskip("safetensors.numpy")
from support.adapter_factory import make_adapters

from stamp_deploy.bundle import load_adapters, load_bundle
from stamp_deploy.bundle.adapter_weights import PARTS_KEY, merge, read_parts
from stamp_deploy.bundle.json_schema import bundle_schema
from stamp_deploy.errors import BundleError


@pytest.fixture
def folder(tmp_path):
    return next(iter(make_adapters(tmp_path / "bundle").values())).path


def rewrite(folder: Path, change) -> None:
    """Change bundle.json, and list the files as they now are: the hashes are not what is tested here."""
    path = folder / "bundle.json"
    document = json.loads(path.read_text())
    change(document)
    for name, entry in document["files"].items():
        data = (folder / name).read_bytes() if (folder / name).is_file() else b""
        entry.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    path.write_text(json.dumps(document))


def test_merging_adds_the_factors_to_the_shared_weights():
    rng = np.random.default_rng(0)
    base, a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 5), (6, 2), (2, 5)))
    full = rng.normal(size=7).astype(np.float32)
    listed = {"tensors": [{"shape": [6, 5], "start": 8}, {"shape": [7]}]}
    data = safetensors.save({"0.a": a, "0.b": b, "1.full": full}, metadata={PARTS_KEY: json.dumps(listed)})
    shared = bytes(8) + base.tobytes()
    merged = np.frombuffer(merge(read_parts(data, len(shared)), shared), np.float32)
    np.testing.assert_allclose(merged[:30].reshape(6, 5), base + a @ b, rtol=1e-6)
    np.testing.assert_array_equal(merged[30:], full)


A, B = np.ones((6, 2), np.float32), np.ones((2, 5), np.float32)
GOOD = [{"shape": [6, 5], "start": 0}]
BAD_WEIGHTS = {
    "outside": ([{"shape": [6, 5], "start": 4}], {"0.a": A, "0.b": B}, "outside the shared weights"),
    "between two numbers": ([{"shape": [6, 5], "start": 2}], {"0.a": A, "0.b": B}, "outside the shared weights"),
    "another shape": ([{"shape": [5, 6], "start": 0}], {"0.a": A, "0.b": B}, "does not fit"),
    "three axes": ([{"shape": [6, 5, 1], "start": 0}], {"0.a": A, "0.b": B}, "does not fit"),
    "a factor is missing": (GOOD, {"0.a": A}, "lack what changes"),
    "one too many": (GOOD, {"0.a": A, "0.b": B, "9.full": A}, "not listed"),
    "not a number": (GOOD, {"0.a": A * np.nan, "0.b": B}, "not finite"),
    "not float32": (GOOD, {"0.a": A.astype(np.float64), "0.b": B}, "not float32"),
    "none": ([], {"0.a": A}, "must change 1 to"),
    "another key": ([{"shape": [6, 5], "start": 0, "code": 1}], {"0.a": A, "0.b": B}, "must hold its shape"),
    "a start that is none": ([{"shape": [6, 5], "start": "0"}], {"0.a": A, "0.b": B}, "must be 0 to"),
    "a shape that is none": ([{"shape": [6, -5], "start": 0}], {"0.a": A, "0.b": B}, "must be 1 to"),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_weights_that_break_a_rule(kind):
    listed, tensors, cause = BAD_WEIGHTS[kind]
    data = safetensors.save(tensors, metadata={PARTS_KEY: json.dumps({"tensors": listed})})
    with pytest.raises(BundleError, match=cause):
        read_parts(data, 120)


def test_weights_that_unfold_into_more_than_there_is():
    shape, count = (60, 50), 9
    thin = {f"{i}.{k}": np.ones(size, np.float32) for i in range(count) for k, size in (("a", (60, 1)), ("b", (1, 50)))}
    listed = [{"shape": shape, "start": 0}] * count
    data = safetensors.save(thin, metadata={PARTS_KEY: json.dumps({"tensors": listed})})
    with pytest.raises(BundleError, match="than there is"):
        read_parts(data, 60 * 50 * 4)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 50) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        safetensors.save({"0.a": A}),
        safetensors.save({"0.a": A}, metadata={PARTS_KEY: "[]"}),
        safetensors.save({"0.a": A}, metadata={PARTS_KEY: "no JSON"}),
    ],
)
def test_bytes_that_are_no_weights(data):
    with pytest.raises(BundleError):
        read_parts(data, 120)


def test_a_tensor_past_the_end_of_the_file():
    header = {
        "__metadata__": {PARTS_KEY: json.dumps({"tensors": [{"shape": [4]}]})},
        "0.full": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    }
    text = json.dumps(header).encode()
    for size, good in ((16, True), (15, False)):
        data = struct.pack("<Q", len(text)) + text + bytes(size)
        if good:
            assert read_parts(data, 0)[0].shape == (4,)
        else:
            with pytest.raises(BundleError, match="must be 0 to 15"):
                read_parts(data, 0)


BAD_DOCUMENTS = {
    "no adapters": (lambda d: d.update(adapters={}), "an object of 1 to"),
    "a list": (lambda d: d.update(adapters=[]), "an object of 1 to"),
    "another key": (lambda d: d.update(extra=1), "unknown key 'extra'"),
    "no name": (lambda d: d.pop("name"), "'name' may hold only"),
    "a name that leaves": (lambda d: d["adapters"].update({"../x": d["adapters"].pop("lung")}), "name may hold only"),
    "names alike": (lambda d: d["adapters"].update(LUNG=d["adapters"]["lung"]), "upper and lower case"),
    "no weights": (lambda d: d["adapters"]["lung"].pop("weights"), "must name 'file' and 'base'"),
    "weights of another": (
        lambda d: d["adapters"]["lung"]["weights"].update(file="breast/adapter.safetensors"),
        "in its own folder",
    ),
    "weights that are not there": (lambda d: d["adapters"]["lung"]["weights"].update(base="x"), "not among 'files'"),
    "a version of its own": (lambda d: d["adapters"]["lung"].update(schema_version=2), "states what the bundle states"),
    "an encoder in a folder": (lambda d: d["adapters"]["lung"].update(encoder="lung/x.onnx"), "beside the shared"),
    "another's golden tiles": (lambda d: d["adapters"]["lung"].update(golden="breast/golden"), "golden folder"),
    "another's head": (
        lambda d: d["adapters"]["lung"]["heads"][0].update(file="breast/heads/msi.onnx"),
        "not among 'files'",
    ),
    "another's graph": (lambda d: d["adapters"]["lung"].update(encoder="breast.onnx"), "not a listed file"),
    "a path out of the bundle": (lambda d: d["files"].update({"../x": {"sha256": "0" * 64, "size": 0}}), "leaves the"),
    "an unknown version": (lambda d: d.update(schema_version=9), "schema version 9"),
    "a shape that is not the model's": (lambda d: d["adapters"]["lung"].update(tile_px=32), "shape"),
}


@pytest.mark.parametrize("kind", BAD_DOCUMENTS)
def test_documents_that_break_a_rule(kind, folder):
    change, cause = BAD_DOCUMENTS[kind]
    rewrite(folder, change)
    with pytest.raises(BundleError, match=cause):
        load_adapters(folder)


AGAINST_OTHERS = (
    "names alike",
    "weights of another",
    "weights that are not there",
    "another's golden tiles",
    "another's head",
    "another's graph",
    "a shape that is not the model's",
)
"""What no value alone makes wrong: the published schema cannot say it."""


def test_the_published_schema_takes_them_and_refuses_what_a_value_alone_makes_wrong(folder):
    check = jsonschema.Draft202012Validator(bundle_schema())
    text = (folder / "bundle.json").read_text()
    check.validate(json.loads(text))
    for key in json.loads(text)["adapters"]["lung"]:
        document = json.loads(text)
        del document["adapters"]["lung"][key]
        assert not check.is_valid(document), key
    for kind, (change, _) in BAD_DOCUMENTS.items():
        document = json.loads(text)
        change(document)
        assert check.is_valid(document) == (kind in AGAINST_OTHERS), kind


@pytest.mark.parametrize("name", ["base.data", "lung/adapter.safetensors", "lung.onnx", "breast/golden/tiles.npy"])
def test_every_file_is_held_to_its_hash_whichever_adapter_is_wanted(name, folder):
    path = folder / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="has been changed"):
        load_bundle(folder, adapter="lung")


def test_weights_exchanged_after_loading_are_noticed(folder):
    bundle = load_bundle(folder, adapter="lung")
    (folder / "lung" / "adapter.safetensors").write_bytes((folder / "breast" / "adapter.safetensors").read_bytes())
    with pytest.raises(BundleError, match="has been changed"):
        bundle.read_encoder()
