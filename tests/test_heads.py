"""Slide-level heads: probabilities, thresholds, abstention, intervals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stamp_deploy.bundle import HeadSpec
from stamp_deploy.errors import BundleError
from stamp_deploy.heads import MAX_TILES_PER_REPLICATE, call_heads, decide, tile_interval, to_probabilities

DIM = 4


def mean_head(path: Path, weights: np.ndarray, *, dim: int = DIM) -> None:
    """A head whose logits are weights @ mean(embeddings) and whose attention is uniform."""
    nodes = [
        helper.make_node("ReduceMean", ["embeddings", "axis"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["w", "mean"], ["logits"]),
        helper.make_node("ReduceSum", ["embeddings", "one"], ["row"], keepdims=0),
        helper.make_node("Mul", ["row", "zero"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["attention"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", dim])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [len(weights)]),
            helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["N"]),
        ],
        [
            numpy_helper.from_array(np.array([0], np.int64), "axis"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(weights.astype(np.float32), "w"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def bundle_of(folder: Path, *specs: HeadSpec) -> SimpleNamespace:
    def read_head(spec: HeadSpec) -> SimpleNamespace:
        return SimpleNamespace(path=folder / spec.file, graph=(folder / spec.file).read_bytes(), data={})

    return SimpleNamespace(path=folder, heads=specs, read_head=read_head)


def spec_of(**changes: object) -> HeadSpec:
    fields: dict = {
        "name": "MSI",
        "file": "msi.onnx",
        "kind": "binary",
        "classes": ("MSS", "MSI-H"),
        "temperature": 2.0,
        "thresholds": (0.5,),
        "abstain": None,
    }
    return HeadSpec(**{**fields, **changes})


def test_binary_call_uses_temperature_and_threshold(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    embedding = np.full((50, DIM), 3.0, np.float32)
    (call,) = call_heads(bundle_of(tmp_path, spec_of()), embedding)
    assert call.value == pytest.approx(1 / (1 + np.exp(-1.5)), abs=1e-6)
    assert (call.call, call.abstained) == ("MSI-H", False)
    assert call.interval == (pytest.approx(call.value), pytest.approx(call.value))
    assert call.attention is not None
    assert call.attention.sum() == pytest.approx(1, abs=1e-5)
    (strict,) = call_heads(bundle_of(tmp_path, spec_of(thresholds=(0.9,))), embedding)
    assert strict.call == "MSS"


def test_band_abstains_and_says_so(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    (call,) = call_heads(bundle_of(tmp_path, spec_of(abstain=(0.4, 0.6))), np.zeros((5, DIM), np.float32))
    assert (call.call, call.abstained, call.value) == (None, True, pytest.approx(0.5))
    assert call.to_dict()["abstain"] == [0.4, 0.6]


def test_interval_covers_the_spread_of_the_tiles_and_is_repeatable(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
    embedding = np.random.default_rng(1).normal(0.5, 1, (200, DIM)).astype(np.float32)
    bundle = bundle_of(tmp_path, spec_of(temperature=1.0))
    (first,), (second,) = call_heads(bundle, embedding), call_heads(bundle, embedding)
    assert first.interval == second.interval
    low, high = (np.log(p / (1 - p)) for p in first.interval)
    # The logit is a mean of 200 values of sd 1: its 95 % interval is about 2 * 1.96 / sqrt(200) = 0.277 wide.
    assert high - low == pytest.approx(0.277, rel=0.35)
    assert first.interval[0] < first.value < first.interval[1]


def test_interval_of_a_large_slide_is_scaled_to_its_size() -> None:
    replicates = 1 / (1 + np.exp(-np.random.default_rng(0).normal(0, 0.2, 4000)))
    narrow = tile_interval("binary", 0.5, replicates, 4 * MAX_TILES_PER_REPLICATE)
    wide = tile_interval("binary", 0.5, replicates, MAX_TILES_PER_REPLICATE)
    width = [np.log(b / (1 - b)) - np.log(a / (1 - a)) for a, b in (narrow, wide)]
    assert width[1] == pytest.approx(2 * width[0], rel=1e-6)
    assert tile_interval("binary", 0.5, np.empty(0), 1) is None


def test_multiclass_and_survival_rules() -> None:
    three = to_probabilities("multiclass", np.array([0.0, 2.0, 1.0]), 1.0)
    assert three.sum() == pytest.approx(1)
    assert decide("multiclass", ("a", "b", "c"), three, ()) == "b"
    assert decide("multiclass", ("a", "b", "c"), three, (0.1, 0.9, 0.1)) is None
    risk = to_probabilities("survival", np.array([0.7]), 3.0)
    assert risk[0] == 0.7
    assert decide("survival", ("low", "high"), risk, (0.5,)) == "high"
    assert decide("survival", ("low", "high"), np.array([0.2]), (0.5,)) == "low"
    assert decide("survival", ("risk",), risk, ()) is None


def test_one_logit_is_the_positive_class() -> None:
    assert to_probabilities("binary", np.array([1.2]), 1.0)[-1] == pytest.approx(1 / (1 + np.exp(-1.2)))


def test_a_head_that_answers_otherwise_is_a_bad_bundle(tmp_path: Path) -> None:
    mean_head(tmp_path / "msi.onnx", np.eye(4))
    with pytest.raises(BundleError, match="4 logits"):
        call_heads(bundle_of(tmp_path, spec_of()), np.ones((3, DIM), np.float32))
    (tmp_path / "msi.onnx").write_bytes(b"not onnx")
    with pytest.raises(BundleError, match="cannot be loaded"):
        call_heads(bundle_of(tmp_path, spec_of()), np.ones((3, DIM), np.float32))
    mean_head(tmp_path / "msi.onnx", np.eye(2, 6), dim=6)
    with pytest.raises(BundleError, match="fails"):
        call_heads(bundle_of(tmp_path, spec_of()), np.ones((3, DIM), np.float32))
