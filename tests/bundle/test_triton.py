"""The Triton repository: parsed by Triton's own schema, and its shapes held against the ONNX files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from support.bundle_factory import make_bundle

from stamp_deploy.bundle import load_bundle
from stamp_deploy.bundle.triton import write_repository
from stamp_deploy.errors import UsageError
from stamp_deploy.verbs.bundle import triton

TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}


def parse(path: Path):
    """config.pbtxt by the schema in tritonclient (loaded by file: its package would want grpc)."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    package = importlib.util.find_spec("tritonclient")
    if package is None:
        pytest.skip("tritonclient, which holds Triton's schema, is not installed")
    file = Path(package.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schema)
    return text_format.Parse(path.read_text(), schema.ModelConfig()), schema


@pytest.fixture
def bundle(tmp_path):
    return load_bundle(make_bundle(tmp_path / "bundle"))


def test_every_config_fits_tritons_schema_and_its_model(bundle, tmp_path):
    names = write_repository(bundle, tmp_path / "repo", max_batch=16, instances=2)
    assert names == [bundle.name, *(f"{bundle.name}-{head.name}" for head in bundle.heads)]
    for name in names:
        config, schema = parse(tmp_path / "repo" / name / "config.pbtxt")
        assert config.name == name and config.backend == "onnxruntime"
        model = tmp_path / "repo" / name / "1" / config.default_model_filename
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        for side, found in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
            assert {t.name for t in side} == {t.name for t in found}
            for tensor in side:
                real = next(t for t in found if t.name == tensor.name)
                dims = [d if isinstance(d, int) else -1 for d in real.shape]
                assert list(tensor.dims) == (dims[1:] if config.max_batch_size else dims)
                assert schema.DataType.Name(tensor.data_type) == TYPES[real.type]
                if getattr(tensor, "label_filename", ""):
                    labels = (model.parent.parent / tensor.label_filename).read_text().splitlines()
                    assert len(labels) == tensor.dims[-1]


def test_tiles_are_batched_and_slides_are_not(bundle, tmp_path):
    write_repository(bundle, tmp_path / "repo", max_batch=16, instances=2)
    encoder, schema = parse(tmp_path / "repo" / bundle.name / "config.pbtxt")
    assert encoder.max_batch_size == 16 and list(encoder.dynamic_batching.preferred_batch_size) == [16]
    assert encoder.instance_group[0].count == 2
    assert encoder.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
    assert encoder.model_warmup[0].inputs["tiles"].zero_data
    assert encoder.parameters["stamp_bundle_sha256"].string_value == bundle.sha256
    head, _ = parse(tmp_path / "repo" / f"{bundle.name}-msi" / "config.pbtxt")
    assert head.max_batch_size == 0 and not head.HasField("dynamic_batching")
    assert head.parameters["stamp_temperature"].string_value == "1.5"


def test_the_copied_models_say_what_the_bundle_says(bundle, tmp_path):
    write_repository(bundle, tmp_path / "repo", device="cpu")
    tiles = np.load(bundle.golden / "tiles.npy")
    copy = tmp_path / "repo" / bundle.name / "1" / "encoder.onnx"
    found = onnxruntime.InferenceSession(str(copy), providers=["CPUExecutionProvider"]).run(None, {"tiles": tiles})
    np.testing.assert_allclose(found[0], np.load(bundle.golden / "embedding.npy"), atol=1e-5)


def test_models_that_are_there_stay(bundle, tmp_path):
    repo = tmp_path / "repo"
    done = CliRunner().invoke(triton, [str(bundle.path), "-o", str(repo), "--device", "cpu"])
    assert done.exit_code == 0 and "model   factory-bundle-msi" in done.output
    (repo / "other").mkdir()
    with pytest.raises(UsageError, match="--overwrite"):
        write_repository(bundle, repo)
    write_repository(bundle, repo, overwrite=True)
    assert sorted(p.name for p in repo.iterdir())[-1] == "other"
