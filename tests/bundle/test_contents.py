"""The bytes that were hashed are the bytes that are loaded: nothing that is swapped later is scored under the hash."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
import pytest
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import load_bundle, write_bundle_json
from stamp_deploy.bundle.contents import read_listed
from stamp_deploy.bundle.triton import write_repository
from stamp_deploy.engine import load_engine, open_engine
from stamp_deploy.engine.golden import load_golden
from stamp_deploy.engine.mixed_precision import encoder_in
from stamp_deploy.errors import BundleError
from stamp_deploy.heads import call_heads

CPU_ENGINES = ["onnxruntime", *(["openvino"] if find_spec("openvino") else [])]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def other(tmp_path):
    return make_bundle(tmp_path / "other", seed=1)


@pytest.fixture
def outside(folder):
    """The same bundle with its large tensors in files beside the graphs, heads included."""
    for name in ("encoder.onnx", "heads/msi.onnx"):
        path = folder / name
        model = onnx.load(path)
        onnx.save(model, path, save_as_external_data=True, location=path.name + ".data", size_threshold=0)
    document = json.loads((folder / "bundle.json").read_text())
    write_bundle_json(folder, {k: v for k, v in document.items() if k not in ("files", "schema_version")})
    return folder


def swap(target, source, how):
    """Put other bytes at a path: a new file in its place, or the old file written over."""
    if how == "renamed":
        copy = target.with_name("copy")
        copy.write_bytes(source.read_bytes())
        os.replace(copy, target)
    else:
        target.write_bytes(source.read_bytes())


@pytest.mark.parametrize("how", ["renamed", "written over"])
class TestSwappedAfterTheCheck:
    @pytest.mark.parametrize("engine", CPU_ENGINES)
    def test_the_encoder(self, folder, other, how, engine):
        bundle = load_bundle(folder)
        swap(folder / "encoder.onnx", other / "encoder.onnx", how)
        with pytest.raises(BundleError, match=r"encoder\.onnx' has been changed"):
            open_engine(bundle, engine, batch=4)
        with pytest.raises(BundleError, match="has been changed"):
            load_engine(bundle, engine, batch=4)

    def test_a_head(self, folder, other, how):
        bundle = load_bundle(folder)
        swap(folder / "heads/msi.onnx", other / "heads/msi.onnx", how)
        with pytest.raises(BundleError, match="has been changed"):
            call_heads(bundle, np.zeros((3, 16), np.float32))

    @pytest.mark.parametrize("name", ["tiles", "embedding", "pathways"])
    def test_the_golden_tiles(self, folder, other, how, name):
        bundle = load_bundle(folder)
        swap(folder / "golden" / f"{name}.npy", other / "golden" / f"{name}.npy", how)
        with pytest.raises(BundleError, match="has been changed") as caught:
            load_golden(bundle)
        assert caught.value.exit_code == 5

    def test_what_is_converted(self, folder, other, how):
        bundle = load_bundle(folder)
        swap(folder / "encoder.onnx", other / "encoder.onnx", how)
        with pytest.raises(BundleError, match="has been changed"):
            encoder_in(bundle, "fp16")

    def test_what_goes_to_triton(self, folder, other, how, tmp_path):
        bundle = load_bundle(folder)
        swap(folder / "encoder.onnx", other / "encoder.onnx", how)
        with pytest.raises(BundleError, match="has been changed"):
            write_repository(bundle, tmp_path / "repo")
        assert not (tmp_path / "repo" / bundle.name).exists()

    @pytest.mark.parametrize("engine", CPU_ENGINES)
    def test_data_outside_the_graph(self, outside, how, engine, tmp_path):
        bundle = load_bundle(outside)
        data = outside / "encoder.onnx.data"
        (tmp_path / "zeros").write_bytes(bytes(data.stat().st_size))
        swap(data, tmp_path / "zeros", how)
        with pytest.raises(BundleError, match=r"encoder\.onnx\.data' has been changed"):
            open_engine(bundle, engine, batch=4)


class TestSwappedWhileLoading:
    """The swap comes between the hash and the runtime: what was hashed scores."""

    @pytest.mark.parametrize("where", ["inside", "outside"])
    def test_onnx_runtime(self, request, folder, other, where, monkeypatch):
        path = request.getfixturevalue("outside") if where == "outside" else folder
        bundle = load_bundle(path)
        real = onnxruntime.InferenceSession

        def swapped(*args, **kwargs):
            for name in ("encoder.onnx", "heads/msi.onnx"):
                swap(path / name, other / name, "renamed")
                if (path / f"{name}.data").exists():
                    (path / f"{name}.data").write_bytes(b"")
            return real(*args, **kwargs)

        tiles, reference = load_golden(bundle)
        monkeypatch.setattr(onnxruntime, "InferenceSession", swapped)
        engine = open_engine(bundle, "onnxruntime", batch=8)
        np.testing.assert_allclose(engine.run(tiles).pathways, reference.pathways, atol=1e-5)
        engine.close()

    @pytest.mark.parametrize("where", ["inside", "outside"])
    def test_openvino(self, request, folder, other, where, monkeypatch):
        openvino = pytest.importorskip("openvino")
        path = request.getfixturevalue("outside") if where == "outside" else folder
        bundle = load_bundle(path)
        real = openvino.Core.read_model

        def swapped(*args, **kwargs):
            swap(path / "encoder.onnx", other / "encoder.onnx", "renamed")
            if (path / "encoder.onnx.data").exists():
                (path / "encoder.onnx.data").write_bytes(b"")
            return real(*args, **kwargs)

        monkeypatch.setattr(openvino.Core, "read_model", swapped)
        engine = open_engine(bundle, "openvino", batch=8)
        tiles, reference = load_golden(bundle)
        np.testing.assert_allclose(engine.run(tiles).pathways, reference.pathways, atol=1e-4)
        engine.close()


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_data_outside_the_graph_is_loaded(outside, engine):
    bundle = load_bundle(outside)
    loaded = load_engine(bundle, engine, batch=4)
    assert loaded.accepted and loaded.info.name == engine
    loaded.close()
    assert call_heads(bundle, np.ones((3, 16), np.float32))[0].name == "msi"


def test_data_outside_the_graph_is_converted(outside):
    model = encoder_in(load_bundle(outside), "fp16")
    assert onnx.load_model_from_string(model.graph).producer_name == "stamp-deploy fp16"


class TestTheWholeFileIsHashed:
    @pytest.mark.parametrize("at", [0, 5 * 2**20, -1])
    def test_of_a_large_file(self, folder, at):
        data = bytearray(np.random.default_rng(0).bytes(9 * 2**20))
        (folder / "card.md").write_bytes(data)
        document = json.loads((folder / "bundle.json").read_text())
        write_bundle_json(folder, {k: v for k, v in document.items() if k not in ("files", "schema_version")})
        data[at] ^= 1
        (folder / "card.md").write_bytes(data)
        with pytest.raises(BundleError, match=r"card\.md' has been changed"):
            load_bundle(folder)

    def test_of_what_is_read(self, tmp_path):
        data = bytes(9 * 2**20)
        (tmp_path / "f").write_bytes(data)
        import hashlib

        entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert read_listed(tmp_path, "f", entry) == data
        for other in (data[:-1] + b"x", data[:-1], data + b"x"):
            (tmp_path / "f").write_bytes(other)
            with pytest.raises(BundleError, match="has been changed"):
                read_listed(tmp_path, "f", entry)

    def test_a_pipe_or_a_link_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "real").write_bytes(b"x")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        for name in ("pipe", "link"):
            with pytest.raises(BundleError):
                read_listed(tmp_path, name, {"size": 1, "sha256": "0" * 64})
