"""The bundle opens when it is whole, and every rule of its schema is enforced."""

from __future__ import annotations

import json

import pytest
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import load_bundle, write_bundle_json
from stamp_deploy.bundle.schema import validate
from stamp_deploy.bundle.signature import sign_bundle
from stamp_deploy.errors import BundleError, ExitCode, UsageError


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return json.loads((make_bundle(tmp_path_factory.mktemp("b") / "bundle") / "bundle.json").read_text())


def test_a_whole_bundle_opens(tmp_path):
    bundle = load_bundle(make_bundle(tmp_path / "bundle", pathways=("A", "B")))
    assert bundle.pathways == ("A", "B") and bundle.tile_px == 64 and bundle.embedding_dim == 16
    assert [head.kind for head in bundle.heads] == ["binary", "multiclass", "survival"]
    assert bundle.heads[0].abstain == (0.4, 0.6)
    assert bundle.encoder.is_file() and bundle.golden.is_dir()


def test_identity_follows_the_content(tmp_path):
    one = load_bundle(make_bundle(tmp_path / "one"))
    same = load_bundle(make_bundle(tmp_path / "same"))
    other = load_bundle(make_bundle(tmp_path / "other", seed=1))
    assert one.sha256 == same.sha256 != other.sha256


def test_a_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(BundleError, match="--bundle") as caught:
        load_bundle(tmp_path / "nothing")
    assert caught.value.exit_code == ExitCode.BAD_BUNDLE == 5


RULES = [
    ({"schema_version": 3}, "schema version 3 is unknown"),
    ({"schema_version": True}, "schema version True"),
    ({"schema_version": "1"}, "schema version '1'"),
    ({"name": "../up"}, "'name' may hold"),
    ({"tile_px": 0}, "tile_px"),
    ({"tile_px": 64.5}, "'tile_px' has the wrong type"),
    ({"tile_px": True}, "'tile_px' has the wrong type"),
    ({"mpp": 1000}, "mpp must be"),
    ({"mean": [0.1, 0.2]}, "three numbers"),
    ({"std": [0.1, 0.2, 0.0]}, "positive"),
    ({"std": [0.1, 0.2, "x"]}, "not a finite number"),
    ({"embedding_dim": 0}, "embedding_dim"),
    ({"pathways": []}, "pathways"),
    ({"pathways": ["A", "A"]}, "repeat"),
    ({"gene_set_sha256": "abc"}, "gene_set_sha256"),
    ({"precision": "fp12"}, "precision"),
    ({"pfm": {"id": "x"}}, "licence"),
    ({"encoder": "other.onnx"}, "encoder is not among"),
    ({"golden": "silver"}, "golden folder"),
    ({"files": {}}, "'files' must list"),
    ({"extra": 1}, "unknown key 'extra'"),
]


@pytest.mark.parametrize(("change", "message"), RULES, ids=[message for _, message in RULES])
def test_each_rule_of_the_schema(document, change, message):
    validate(document)
    with pytest.raises(BundleError, match=message):
        validate({**document, **change})


@pytest.mark.parametrize("key", ["name", "heads", "tissue", "files", "parity"])
def test_a_missing_key_is_named(document, key):
    with pytest.raises(BundleError, match=f"lacks '{key}'"):
        validate({k: v for k, v in document.items() if k != key})


HEADS = [
    ({"kind": "regression"}, "unknown kind"),
    ({"classes": ["A"]}, "binary with 1 classes"),
    ({"temperature": 0}, "temperature"),
    ({"temperature": None}, "temperature"),
    ({"abstain": [0.6, 0.4]}, "upside down"),
    ({"abstain": [0.6]}, r"\[low, high\]"),
    ({"file": "heads/other.onnx"}, "not among 'files'"),
    ({"thresholds": ["x"]}, "threshold"),
    ({"details": None}, "details"),
]


@pytest.mark.parametrize(("change", "message"), HEADS, ids=[message for _, message in HEADS])
def test_each_rule_of_a_head(document, change, message):
    heads = [{**document["heads"][0], **change}]
    with pytest.raises(BundleError, match=message):
        validate({**document, "heads": heads})


def test_writing_refuses_what_loading_would(tmp_path, document):
    folder = make_bundle(tmp_path / "bundle")
    (folder / "bundle.json").unlink()
    body = {k: v for k, v in document.items() if k not in ("files", "schema_version")}
    with pytest.raises(BundleError, match="mpp"):
        write_bundle_json(folder, {**body, "mpp": -1})
    assert write_bundle_json(folder, body).sha256 == load_bundle(folder).sha256


@pytest.fixture
def keys(tmp_path):
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    def pair(name):
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        public = private.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pem").write_bytes(pem)
        (tmp_path / f"{name}.pub").write_bytes(public)
        return tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"

    return pair("site"), pair("other")


def test_a_signature_fits_only_its_key_and_its_bytes(tmp_path, keys):
    (private, public), (_, stranger) = keys
    folder = make_bundle(tmp_path / "bundle")
    with pytest.raises(BundleError, match="there is none"):
        load_bundle(folder, require_signature=public)
    sign_bundle(folder, private)
    load_bundle(folder)
    load_bundle(folder, require_signature=public)
    with pytest.raises(BundleError, match="does not fit"):
        load_bundle(folder, require_signature=stranger)
    path = folder / "bundle.json"
    path.write_text(path.read_text().replace("factory-bundle", "factory-bundlf"))
    load_bundle(folder)
    with pytest.raises(BundleError, match="does not fit"):
        load_bundle(folder, require_signature=public)


def test_a_wrong_key_file_is_a_usage_error(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    (tmp_path / "key").write_text("not a key")
    for name in ("key", "absent"):
        with pytest.raises(UsageError):
            load_bundle(folder, require_signature=tmp_path / name)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"mpp": NaN}', None], ids=["cut", "list", "NaN", "good"])
def test_the_signature_is_checked_before_anything_is_parsed(tmp_path, keys, monkeypatch, content):
    (private, public), (_, stranger) = keys
    folder = make_bundle(tmp_path / "bundle")
    sign_bundle(folder, private)
    if content is not None:
        (folder / "bundle.json").write_bytes(content)
    from stamp_deploy.bundle import load as module

    monkeypatch.setattr(module, "parse_json", lambda raw: pytest.fail("bundle.json was parsed before its signature"))
    monkeypatch.setattr(module, "check_listed", lambda *args: pytest.fail("a file was read before the signature"))
    with pytest.raises(BundleError, match="does not fit"):
        load_bundle(folder, require_signature=stranger if content is None else public)
