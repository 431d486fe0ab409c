"""Rules that hold for each model, head, file and key of a bundle, not for the first of them only."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.bundle_factory import make_bundle, write_bundle_json

from stamp_deploy.bundle import Bundle, load_bundle
from stamp_deploy.bundle.contents import OnnxBytes, check_listed, read_onnx
from stamp_deploy.bundle.onnx_scan import OnnxFacts
from stamp_deploy.bundle.reference import EmbeddingReference, TrustReference
from stamp_deploy.bundle.schema import validate
from stamp_deploy.bundle.signature import check_signature, sign_bundle, sign_file
from stamp_deploy.bundle.strict_json import parse_json
from stamp_deploy.errors import BundleError, StampError, UsageError
from stamp_deploy.hashing import sha256_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def document(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "bundle.json").read_text()))


def rewritten(folder: Path, **change: Any) -> Bundle:
    """The bundle with its present files, every hash in order."""
    document = json.loads((folder / "bundle.json").read_text()) | change
    return write_bundle_json(folder, {k: v for k, v in document.items() if k not in ("files", "schema_version")})


def edited(path: Path, edit: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)


def twin(file: str = "int8.onnx", **other: Any) -> dict[str, Any]:
    value = {"file": file, "precision": "int8", "engines": ["openvino"], "by_default": False, "way": "x", "parity": {}}
    return value | other


# Models


def test_a_twin_is_held_to_the_shapes_of_the_encoder(folder: Path) -> None:
    shutil.copy(folder / "encoder.onnx", folder / "int8.onnx")
    assert rewritten(folder, twins=[twin()]).twins[0].file == "int8.onnx"

    def narrower(model: onnx.ModelProto) -> None:
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 15]))

    edited(folder / "int8.onnx", narrower)
    with pytest.raises(BundleError, match=r"int8\.onnx: embedding has the shape"):
        rewritten(folder, twins=[twin()])


@pytest.mark.parametrize(("head", "wrong"), [("msi", [3]), ("subtype", [2]), ("survival", [2])])
def test_every_head_is_held_to_its_classes(folder: Path, head: str, wrong: list[int]) -> None:
    def other(model: onnx.ModelProto) -> None:
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, wrong))

    edited(folder / "heads" / f"{head}.onnx", other)
    with pytest.raises(BundleError, match=rf"heads/{head}\.onnx: logits has the shape \({wrong[0]},\)"):
        rewritten(folder)


def test_a_head_of_another_embedding_is_refused(folder: Path) -> None:
    def wider(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", 17]))

    edited(folder / "heads" / "survival.onnx", wider)
    with pytest.raises(BundleError, match=r"survival\.onnx: embeddings has the shape"):
        rewritten(folder)


def test_an_onnx_file_that_nothing_names_is_walked_over_too(folder: Path) -> None:
    shutil.copy(folder / "encoder.onnx", folder / "spare.onnx")
    rewritten(folder)

    def hostile(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = "evil.ops"

    edited(folder / "spare.onnx", hostile)
    with pytest.raises(BundleError, match=r"operators of the domain 'evil\.ops'"):
        rewritten(folder)


def test_tensors_in_a_folder_beside_the_graph_are_copied_there(tmp_path: Path) -> None:
    model = OnnxBytes(Path("encoder.onnx"), b"graph", OnnxFacts(), {"weights/part/1.bin": b"one", "2.bin": b"two"})
    with model.snapshot() as path:
        assert path.name == "encoder.onnx" and path.read_bytes() == b"graph"
        assert (path.parent / "weights" / "part" / "1.bin").read_bytes() == b"one"
        assert (path.parent / "2.bin").read_bytes() == b"two"
    assert not path.parent.exists()


@pytest.mark.parametrize("where", ["", "parts/"])
def test_tensors_outside_the_graph_lie_beside_it_wherever_it_lies(tmp_path: Path, where: str) -> None:
    """`heads/msi.onnx` names its tensors from `heads/`."""
    folder = make_bundle(tmp_path / "bundle")
    path = folder / "heads" / "msi.onnx"
    (path.parent / where).mkdir(exist_ok=True)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=f"{where}msi.data", size_threshold=0)
    bundle = rewritten(folder)
    assert set(bundle.read_head(bundle.heads[0]).data) == {f"{where}msi.data"}
    found = read_onnx(folder, "heads/msi.onnx", bundle.files, with_data=False)
    assert found.data == {} and found.facts.external[0].location == f"{where}msi.data"


def test_a_model_as_large_as_protobuf_allows_is_refused_before_it_is_read(folder: Path) -> None:
    (folder / "encoder.onnx").unlink()
    with pytest.raises(BundleError, match="larger than a protobuf message"):
        read_onnx(folder, "encoder.onnx", {"encoder.onnx": {"size": 2**31, "sha256": "0" * 64}})
    with pytest.raises(BundleError, match="cannot be read"):
        read_onnx(folder, "encoder.onnx", {"encoder.onnx": {"size": 2**31 - 1, "sha256": "0" * 64}})


def test_a_file_is_held_to_its_hash_without_being_kept(tmp_path: Path) -> None:
    data = os.urandom(9 << 20)
    (tmp_path / "f").write_bytes(data)
    entry = {"size": len(data), "sha256": sha256_file(tmp_path / "f")}
    check_listed(tmp_path, "f", entry)
    (tmp_path / "f").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match="has been changed"):
        check_listed(tmp_path, "f", entry)


# Files and names


def test_a_bundle_json_that_is_a_link_is_not_followed(folder: Path) -> None:
    (folder / "bundle.json").rename(folder.parent / "elsewhere.json")
    (folder / "bundle.json").symlink_to(folder.parent / "elsewhere.json")
    with pytest.raises(BundleError, match=r"holds no bundle\.json"):
        load_bundle(folder)


def test_the_hash_of_a_bundle_is_that_of_all_of_its_json(tmp_path: Path) -> None:
    one = load_bundle(make_bundle(tmp_path / "one", pathways=tuple(f"P{i:04}" for i in range(800))))
    other = load_bundle(make_bundle(tmp_path / "two", pathways=tuple(f"P{i:04}" for i in range(800)), seed=1))
    assert one.sha256 == sha256_file(one.path / "bundle.json") != other.sha256


def test_colours_and_bands_keep_their_order(folder: Path) -> None:
    heads = json.loads((folder / "bundle.json").read_text())["heads"]
    heads[2]["abstain"] = [-0.25, 0.75]
    bundle = rewritten(folder, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], heads=heads)
    assert (bundle.mean, bundle.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert [head.abstain for head in bundle.heads] == [(0.4, 0.6), None, (-0.25, 0.75)]
    assert [head.to_dict() for head in bundle.heads] == [{**head} for head in heads]


@pytest.mark.parametrize("dim", [16, 15])
def test_the_reference_that_a_bundle_names_comes_with_it_and_fits(tmp_path: Path, dim: int) -> None:
    embedding = EmbeddingReference(np.zeros(dim), np.ones((dim, 2)), 1.0, 10)
    known = TrustReference(
        mpp=0.5, tile_px=64, left_out_by="patient", groups=2, tiles=10, centre=np.zeros(2), spread=np.ones(2),
        whiten=np.eye(2), distances=np.linspace(0, 1, 101), median=0.5, low=np.zeros(3), high=np.ones(3),
        embedding=embedding,
    )  # fmt: skip
    if dim != 16:  # the encoder gives 16 numbers
        with pytest.raises(BundleError, match="must be 16 by"):
            make_bundle(tmp_path / "b", trust=known.to_json())
        return
    found = load_bundle(make_bundle(tmp_path / "b", trust=known.to_json()))
    assert found.reference is not None and found.reference.embedding is not None and found.reference.median == 0.5
    assert load_bundle(make_bundle(tmp_path / "none")).reference is None


SAME_IN_SMALL_LETTERS = {
    "files": (lambda d: {"files": {**d["files"], "CARD.md": d["files"]["card.md"]}}, "upper and lower case"),
    "heads": (lambda d: {"heads": [d["heads"][0], {**d["heads"][1], "name": "MSI"}]}, "two heads share a name"),
}


@pytest.mark.parametrize("what", SAME_IN_SMALL_LETTERS)
def test_names_that_differ_in_case_only_are_refused(document: dict[str, Any], what: str) -> None:
    """On many disks they are one file."""
    change, message = SAME_IN_SMALL_LETTERS[what]
    with pytest.raises(BundleError, match=message):
        validate(document | change(document))


def with_hash(document: dict[str, Any], digest: str) -> dict[str, Any]:
    return {"files": {**document["files"], "card.md": {**document["files"]["card.md"], "sha256": digest}}}


CHANGES: list[tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = [
    (lambda d: with_hash(d, "0" * 64 + "/../x"), "is not a SHA-256"),
    (lambda d: with_hash(d, "0" * 63), "is not a SHA-256"),
    (lambda d: with_hash(d, "G" * 64), "is not a SHA-256"),
    (lambda d: {"gene_set_sha256": "0" * 65}, "gene_set_sha256"),
    (lambda d: {"std": [0.2, 0.0, 0.2]}, "'std' must be positive"),
    (lambda d: {"golden": "gold"}, "golden folder"),
    (lambda d: {"trust": "trust.json"}, "reference of 'trust' is not among"),
    (lambda d: {"outputs": ["pathways", "embedding"]}, "'outputs' must be"),
    (lambda d: {"outputs": ["embedding"]}, "'outputs' must be"),
    (lambda d: {"input_range": {"mpp": [0, 0.5]}}, "no range of microns"),
    (lambda d: {"input_range": {"mpp": [1e-9, 1e-6]}}, "no range of microns"),
    (lambda d: {"heads": [{**d["heads"][1], "classes": ["A"]}]}, "multiclass with 1 classes"),
    (lambda d: {"heads": [{**d["heads"][0], "classes": ["A", "B", "C"]}]}, "binary with 3 classes"),
    (lambda d: {"heads": [{**d["heads"][0], "name": "../msi"}]}, "head's name"),
    (lambda d: {"pfm": {**d["pfm"], "trained_on": ["x", "x"]}}, "trained_on"),
]


@pytest.mark.parametrize("number", range(len(CHANGES)), ids=[message for _, message in CHANGES])
def test_rules_of_single_values(document: dict[str, Any], number: int) -> None:
    change, message = CHANGES[number]
    validate(document)
    with pytest.raises(BundleError, match=message):
        validate(document | change(document))


def test_a_band_of_a_log_hazard_may_lie_outside_0_and_1(document: dict[str, Any]) -> None:
    document["heads"][2]["abstain"] = [-2.0, 3.0]
    validate(document)
    document["heads"][2]["abstain"] = [3.0, -2.0]
    with pytest.raises(BundleError, match="upside down"):
        validate(document)


TWINS = [
    ({"file": "encoder.onnx"}, "the encoder itself"),
    ({"file": "card.md"}, "no ONNX file"),
    ({"file": "other.onnx"}, "no ONNX file"),
    ({"precision": "fp12"}, "precision of a twin"),
    ({"engines": []}, "engines of a twin"),
    ({"by_default": 1}, "by_default"),
    ({"parity": None}, "'parity' of a twin"),
    ({"more": 1}, "a twin must hold"),
]


@pytest.mark.parametrize(("change", "message"), TWINS, ids=[message for _, message in TWINS])
def test_rules_of_a_twin(document: dict[str, Any], change: dict[str, Any], message: str) -> None:
    files = {**document["files"], "int8.onnx": document["files"]["encoder.onnx"]}
    validate({**document, "files": files, "twins": [twin()]})
    with pytest.raises(BundleError, match=message):
        validate({**document, "files": files, "twins": [twin(**change)]})


def test_two_twins_for_one_engine_in_one_precision_are_refused(document: dict[str, Any]) -> None:
    one = document["files"]["encoder.onnx"]
    changed = {**document, "files": {**document["files"], "int8.onnx": one, "other.onnx": one}}
    validate({**changed, "twins": [twin(), twin("other.onnx", engines=["onnxruntime"])]})
    with pytest.raises(BundleError, match="two twins are for openvino in int8"):
        validate({**changed, "twins": [twin(), twin("other.onnx", engines=["onnxruntime", "openvino"])]})


def test_a_twin_serves_its_engines_in_its_precision_only(folder: Path) -> None:
    for name in ("int8.onnx", "bf16.onnx"):
        shutil.copy(folder / "encoder.onnx", folder / name)
    unasked = twin("bf16.onnx", precision="bf16", engines=["onnxruntime", "openvino"], by_default=True)
    bundle = rewritten(folder, twins=[twin(), unasked])
    served = bundle.for_engine("openvino", "int8")
    assert (served.precision, served.encoder_file) == ("int8", "int8.onnx")
    for engine, precision in (("onnxruntime", "int8"), ("openvino", None), ("openvino", "fp32")):
        assert bundle.for_engine(engine, precision) is bundle
    assert bundle.twin_precisions("openvino", by_default=True) == ("bf16",)
    assert bundle.twin_precisions("openvino", by_default=False) == ("int8", "bf16")
    assert bundle.twin_precisions("onnxruntime", by_default=False) == ("bf16",)
    assert bundle.twin_precisions("tensorrt", by_default=False) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"b": 1, "b": 1}}', "repeats a key"),
        ('{"a": -Infinity}', "holds -Infinity"),
        ('{"a": [' + "1" * 33 + "]}", "33 digits"),
        ('{"a": 1e999}', "no one measures"),
        ("[" * 100_000, "not valid JSON"),
        ('"text"', "does not hold an object"),
    ],
    ids=["repeated inside", "-Infinity", "33 digits", "1e999", "nested", "no object"],
)
def test_json_that_two_parsers_could_read_in_two_ways(text: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        parse_json(text.encode())
    assert parse_json(('{"a": ' + "1" * 32 + ', "b": 1.5}').encode()) == {"a": int("1" * 32), "b": 1.5}


# Signatures


class Keys:
    """Key files of several kinds."""

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives import serialization as s
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        self.private, self.public, self.pem = {}, {}, s.Encoding.PEM
        for kind, key in (
            ("ed25519", ed25519.Ed25519PrivateKey.generate()),
            ("ec", ec.generate_private_key(ec.SECP256R1())),
        ):
            self.private[kind], self.public[kind] = folder / f"{kind}.pem", folder / f"{kind}.pub"
            self.private[kind].write_bytes(key.private_bytes(self.pem, s.PrivateFormat.PKCS8, s.NoEncryption()))
            public = key.public_key().public_bytes(self.pem, s.PublicFormat.SubjectPublicKeyInfo)
            self.public[kind].write_bytes(public)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


def test_keys_of_another_kind_are_a_mistake_of_the_user(folder: Path, keys: Keys) -> None:
    with pytest.raises(UsageError, match="not an Ed25519 private key"):
        sign_bundle(folder, keys.private["ec"])
    assert not (folder / "bundle.json.sig").exists()
    sign_bundle(folder, keys.private["ed25519"])
    with pytest.raises(UsageError, match="not an Ed25519 public key"):
        load_bundle(folder, require_signature=keys.public["ec"])
    with pytest.raises(UsageError, match="not a PEM public key"):
        load_bundle(folder, require_signature=keys.private["ed25519"])
    with pytest.raises(UsageError, match="not an unencrypted PEM private key"):
        sign_bundle(folder, keys.public["ed25519"])


@pytest.mark.parametrize("how", ["longer", "shorter", "link", "folder"])
def test_a_signature_is_64_bytes_in_a_file_of_its_own(folder: Path, keys: Keys, how: str) -> None:
    path = sign_bundle(folder, keys.private["ed25519"])
    good = path.read_bytes()
    assert len(good) == 64
    path.unlink()
    if how == "link":
        (folder.parent / "sig").write_bytes(good)
        path.symlink_to(folder.parent / "sig")
    elif how == "folder":
        path.mkdir()
    else:
        path.write_bytes(good + b"\n" if how == "longer" else good[:-1])
    with pytest.raises(BundleError, match="a signature is required and there is none"):
        load_bundle(folder, require_signature=keys.public["ed25519"])


def test_a_signature_is_of_the_bytes_that_were_read(tmp_path: Path, keys: Keys) -> None:
    """Not of what the file holds by then."""
    path = tmp_path / "document.json"
    path.write_bytes(b"signed")
    signature = sign_file(path, keys.private["ed25519"])
    assert signature == tmp_path / "document.json.sig"
    check_signature(b"signed", signature, keys.public["ed25519"])
    with pytest.raises(BundleError, match="does not fit"):
        check_signature(b"other", signature, keys.public["ed25519"])


def test_a_key_that_is_a_pipe_is_not_waited_for(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(tmp_path / "key")
    with pytest.raises(StampError):
        load_bundle(folder, require_signature=tmp_path / "key")
