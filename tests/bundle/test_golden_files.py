"""Damaged golden files are the bundle's fault, exit code 5, whatever numpy makes of them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import write_bundle_json
from stamp_deploy.engine import load_engine
from stamp_deploy.engine.golden import load_golden
from stamp_deploy.errors import BundleError


def npy(array, **kwargs):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **kwargs)
    return stream.getvalue()


def header(text, version=b"\x01\x00"):
    body = text.encode()
    return b"\x93NUMPY" + version + len(body).to_bytes(2, "little") + body


def bundle_with(tmp_path, name, data):
    """A bundle with other bytes in one golden file, every hash in order."""
    folder = make_bundle(tmp_path / "bundle")
    (folder / "golden" / f"{name}.npy").write_bytes(data)
    document = json.loads((folder / "bundle.json").read_text())
    return write_bundle_json(folder, {k: v for k, v in document.items() if k not in ("files", "schema_version")})


DAMAGE = {
    "empty": b"",
    "text": b"not an array",
    "zip": b"PK\x03\x04" + bytes(60),
    "pickle": b"\x80\x04N.",
    "cut header": npy(np.zeros((8, 16), np.float32))[:40],
    "cut data": npy(np.zeros((8, 16), np.float32))[:-5],
    "more data": npy(np.zeros((8, 16), np.float32)) + b"xx",
    "header is code": header("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').getpid(),)}"),
    "header does not parse": header("{'descr': '<f4', 'fortran_order': False, 'shape': (8, 16"),
    "header is empty": header("{}"),
    "header nests": header("(" * 5000),
    "unknown version": header("{}", b"\x07\x00"),
    "too large for any memory": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 16), }"),
    "negative shape": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-8, 16), }"),
    "objects": npy(np.array([[None] * 16] * 8, object), allow_pickle=True),
    "words": npy(np.full((8, 16), "abcd")),
    "complex": npy(np.zeros((8, 16), np.complex64)),
    "a single number": npy(np.float32(1)),
    "other shape": npy(np.zeros((8, 15), np.float32)),
    "other count": npy(np.zeros((7, 16), np.float32)),
    "one tile": npy(np.zeros((1, 16), np.float32)),
    "integers": npy(np.zeros((8, 16), np.int32)),
    "NaN": npy(np.full((8, 16), np.nan, np.float32)),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_embedding_is_exit_5(tmp_path, what, monkeypatch):
    monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))
    bundle = bundle_with(tmp_path, "embedding", DAMAGE[what])
    with pytest.raises(BundleError) as caught:
        load_engine(bundle, "onnxruntime", batch=4)
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tiles", "pathways"])
@pytest.mark.parametrize("what", ["text", "cut data", "objects", "a single number"])
def test_the_other_files_too(tmp_path, name, what):
    with pytest.raises(BundleError, match=f"the golden ({name} cannot be read|arrays do not fit)"):
        load_golden(bundle_with(tmp_path, name, DAMAGE[what]))


@pytest.mark.parametrize("shape", [(8, 72, 72, 3), (8, 64, 64, 4), (8, 56, 56, 3), (8, 64, 64), (9, 64, 64, 3)])
def test_tiles_of_another_shape_do_not_fit(tmp_path, shape):
    with pytest.raises(BundleError, match="the golden arrays do not fit"):
        load_golden(bundle_with(tmp_path, "tiles", npy(np.zeros(shape, np.uint8))))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floats_and_orders_are_read(tmp_path, dtype):
    good, reference = load_golden(bundle_with(tmp_path, "card", b""))
    stored = np.asfortranarray(reference.embedding.astype(dtype))
    other = tmp_path / "second"
    other.mkdir()
    again = load_golden(bundle_with(other, "embedding", npy(stored)))[1]
    np.testing.assert_allclose(again.embedding, reference.embedding, rtol=2e-3, atol=2e-3)
    assert again.embedding.dtype == np.float32 and good.shape == (8, 64, 64, 3)
