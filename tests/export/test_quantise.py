"""int8: every way is judged twice, the fastest is kept per engine, and what changes the order of tiles is refused."""

from __future__ import annotations

import dataclasses
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from test_export import TinyModel, document, module, tiles, written_once  # noqa: F401

from stamp_deploy.bundle import Bundle, load_bundle
from stamp_deploy.engine import load_engine
from stamp_deploy.engine.tolerances import TOLERANCES
from stamp_deploy.errors import BundleError, EngineError, ParityError, UsageError

ENGINES = ("onnxruntime", *(["openvino"] if find_spec("openvino") else []))


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory, tiles: np.ndarray) -> Bundle:  # noqa: F811
    """fp32 with int8 beside it; made once."""
    pytest.importorskip("nncf")
    model, ex = TinyModel().eval(), module("export")
    folder = tmp_path_factory.mktemp("twins")
    return ex.export_model(ex.Source(model, model, document()), folder / "bundle", tiles=tiles, also=["int8"])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAMP_CACHE_DIR", str(tmp_path / "cache"))


def test_int8_stands_beside_fp32_and_must_be_asked_for(twins: Bundle, tiles: np.ndarray) -> None:  # noqa: F811
    (twin,) = twins.twins
    assert (twins.precision, twin.precision, twin.way, twin.by_default) == ("fp32", "int8", "smooth", False)
    assert twin.engines == ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
    assert twin.parity["spearman_min"] >= 0.9 and twin.parity["outlier_spearman_min"] >= 0.9
    assert set(twin.parity["tiles_per_second"]) == set(ENGINES)
    assert twins.parity["twins"]["calibration_tiles"] == 15 and twins.parity["tiles"] == 25
    for name in ENGINES:
        found = {}
        for precision in (None, "int8"):
            engine = load_engine(twins, name, batch=8, precision=precision)
            found[precision] = engine.run(tiles[:8]).pathways
            assert engine.info.precision.startswith("int8") == (precision == "int8"), engine.info
            assert engine.info.details.get("encoder") == (twin.file if precision else None)
            engine.close()
        moved = np.abs(found[None] - found["int8"]).max()
        assert 1e-4 < moved < 0.5 * found[None].std()


def test_every_scale_is_symmetric_as_tensorrt_wants(twins: Bundle) -> None:
    graph = onnx.load(twins.path / twins.twins[0].file).graph
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scaled = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [weights[node.input[2]] for node in scaled]
    assert len(scaled) > 8
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)


@pytest.mark.parametrize("by_default", [False, True])
def test_auto_tries_the_twin_where_it_may(twins: Bundle, by_default: bool) -> None:
    allowed = tuple(dataclasses.replace(twin, by_default=by_default) for twin in twins.twins)
    bundle = dataclasses.replace(twins, twins=allowed)
    for precision in (None, "auto"):
        engine = load_engine(bundle, "auto", batch=8, precision=precision)
        assert ("onnxruntime int8" in engine.info.why) == (by_default or precision == "auto"), engine.info.why
        engine.close()


def test_a_twin_that_says_something_else_is_not_used(twins: Bundle, tmp_path: Path) -> None:
    other, ex = TinyModel().eval(), module("export")
    module("graph.to_onnx").write_encoder(
        module("graph.to_onnx").Encoder(_scrambled(other), (0.5,) * 3, (0.2,) * 3), tmp_path / "wrong.onnx", 64
    )
    bundle = _with_file(twins, tmp_path / "wrong.onnx", tmp_path / "bundle")
    engine = load_engine(bundle, "auto", batch=8, precision="auto")
    assert engine.info.precision != "int8"
    assert "onnxruntime int8: fails parity" in engine.info.why
    engine.close()
    with pytest.raises(ParityError, match="int8 fails parity"):
        load_engine(bundle, "onnxruntime", batch=8, precision="int8")
    assert ex is not None


def _scrambled(model: TinyModel) -> TinyModel:
    import torch

    with torch.no_grad():
        model.pathway.weight.copy_(torch.flip(model.pathway.weight, (1,)))
    return model


def _with_file(bundle: Bundle, file: Path, folder: Path) -> Bundle:
    """A copy of a bundle whose twin is another file, under hashes that fit."""
    import json
    import shutil

    from stamp_deploy.bundle import write_bundle_json

    shutil.copytree(bundle.path, folder)
    shutil.copy(file, folder / bundle.twins[0].file)
    document = json.loads((folder / "bundle.json").read_text())
    return write_bundle_json(folder, {k: v for k, v in document.items() if k not in ("files", "schema_version")})


def test_an_engine_without_a_twin_says_so(twins: Bundle) -> None:
    bundle = dataclasses.replace(twins, twins=())
    with pytest.raises(EngineError, match="runs this bundle in fp32, not in int8"):
        load_engine(bundle, "onnxruntime", batch=8, precision="int8")


def test_int8_alone_takes_the_way_that_holds_with_outliers(tmp_path: Path, tiles: np.ndarray) -> None:  # noqa: F811
    pytest.importorskip("nncf")
    model, ex = TinyModel().eval(), module("export")
    bundle = ex.export_model(ex.Source(model, model, document()), tmp_path / "b", tiles=tiles, precision="int8")
    ways = bundle.parity["ways"]
    assert (bundle.precision, bundle.parity["quantisation"], bundle.twins) == ("int8", "smooth", ())
    assert sorted(path.name for path in bundle.path.glob("*.onnx*")) == ["encoder.onnx"]
    for way in ("dynamic in onnxruntime", "static in onnxruntime"):
        assert ways[way].startswith("refused, with outlier channels"), ways[way]
    assert ways["smooth in onnxruntime"].startswith("accepted")


def test_a_twin_states_the_least_of_its_engines(tmp_path: Path) -> None:
    precision, quantise = module("precision"), module("quantise")

    def report(spearman: float, cosine: float) -> SimpleNamespace:
        return SimpleNamespace(metrics={"spearman_min": spearman, "cosine_min": cosine})

    first = quantise.Candidate("smooth", "onnxruntime", report(0.99, 0.97), report(0.985, 0.9), 10.0)
    second = quantise.Candidate("smooth", "openvino", report(0.985, 0.98), report(0.981, 0.9), 30.0)
    kept = {"onnxruntime": first, "openvino": second, "tensorrt": first}
    made = quantise.Quantised((first, second), kept, {"smooth": tmp_path / "twin.onnx"})
    (twin,) = precision._twins(made, by_default=False)
    assert twin["parity"] == {
        "spearman_min": 0.985, "cosine_min": 0.97, "outlier_spearman_min": 0.981,
        "tiles_per_second": {"onnxruntime": 10.0, "openvino": 30.0},
    }  # fmt: skip


def test_ways_that_change_the_order_are_refused_with_their_numbers(
    tmp_path: Path,
    tiles: np.ndarray,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    written_once: None,  # noqa: F811
) -> None:
    ex, quantise = module("export"), module("quantise")
    model = TinyModel().eval()
    monkeypatch.setattr(quantise, "WAYS", quantise.WAYS[:2])
    monkeypatch.setitem(TOLERANCES, "int8", dataclasses.replace(TOLERANCES["int8"], spearman_min=1.0))
    message = (
        r"int8 is refused: dynamic in onnxruntime: refused, spearman_min is 0\.\d+ .*; static in onnxruntime: refused"
    )
    with pytest.raises(ParityError, match=message):
        ex.export_model(ex.Source(model, model, document()), tmp_path / "bundle", tiles=tiles, precision="int8")
    assert list(tmp_path.glob("[!c]*")) == []


def test_without_nncf_the_remedy_names_it(
    tmp_path: Path,
    tiles: np.ndarray,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    written_once: None,  # noqa: F811
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    ex, quantise = module("export"), module("quantise")
    monkeypatch.setattr(quantise, "find_spec", lambda name: None if name == "nncf" else find_spec(name))
    model = TinyModel().eval()
    with pytest.raises(ParityError, match="smooth in onnxruntime: refused, cannot be made: NNCF is not") as caught:
        ex.export_model(ex.Source(model, model, document()), tmp_path / "bundle", tiles=tiles, also=["int8"])
    assert "stamp-deploy[int8]" in caught.value.remedy


@pytest.mark.parametrize(("convolutions", "corrected"), [(1, False), (2, True)])
def test_biases_are_corrected_in_networks_of_convolutions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, convolutions: int, corrected: bool
) -> None:
    """A transformer has one, which cuts its patches; NNCF's correction would do nothing in it but take time."""
    nncf = pytest.importorskip("nncf")
    nodes = [onnx.helper.make_node("Conv", [f"x{i}", "w"], [f"x{i + 1}"]) for i in range(convolutions)]
    ends = [onnx.helper.make_tensor_value_info(f"x{i}", onnx.TensorProto.FLOAT, None) for i in (0, convolutions)]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "some", ends[:1], ends[1:]))
    onnx.save(model, tmp_path / "fp32.onnx")
    seen: list[bool] = []

    def quantize(given: onnx.ModelProto, *_: object, advanced_parameters: SimpleNamespace, **__: object) -> object:
        seen.append(not advanced_parameters.disable_bias_correction)
        return given

    monkeypatch.setattr(nncf, "quantize", quantize)
    module("quantise_ways").smooth(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", np.zeros((1, 8, 8, 3), np.uint8))
    assert seen == [corrected]


@pytest.mark.parametrize(("precision", "also"), [("int8", ["int8"]), ("fp32", ["fp16"])])
def test_what_cannot_stand_beside_is_refused(precision: str, also: list[str]) -> None:
    with pytest.raises(UsageError, match=r"int8 already|also carry fp16"):
        module("precision").check_precision(precision, also)


def test_the_outlier_twin_is_the_same_function_with_outliers(tmp_path: Path, tiles: np.ndarray) -> None:  # noqa: F811
    outliers, run = module("outliers"), module("run_models")
    to_onnx = module("graph.to_onnx")
    to_onnx.write_encoder(to_onnx.Encoder(TinyModel().eval(), (0.5,) * 3, (0.2,) * 3), tmp_path / "e.onnx", 64)
    model = onnx.load(tmp_path / "e.onnx")
    before = model.SerializeToString()
    twin = outliers.outlier_twin(model)
    assert model.SerializeToString() == before
    onnx.save(twin, tmp_path / "twin.onnx")
    plain, strained = (run.run_onnx(tmp_path / name, tiles[:8]) for name in ("e.onnx", "twin.onnx"))
    assert np.abs(plain.pathways - strained.pathways).max() < 1e-4
    assert _largest(tmp_path / "twin.onnx", tiles) > 10 * _largest(tmp_path / "e.onnx", tiles)


def _largest(path: Path, tiles: np.ndarray) -> float:  # noqa: F811
    """The largest value that the first product with weights behind a LayerNormalization reads."""
    import onnxruntime

    model = onnx.load(path)
    name = next(node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization")
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return float(np.abs(session.run([name], {"tiles": tiles[:4]})[0]).max())


def test_a_graph_without_layer_norms_has_no_outlier_twin() -> None:
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", [x], [y])
    with pytest.raises(ValueError, match="no LayerNormalization"):
        module("outliers").outlier_twin(onnx.helper.make_model(graph))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "none.onnx"}, "no ONNX file among"),
        ({"file": "encoder.onnx"}, "the encoder itself"),
        ({"precision": "int4"}, "precision of a twin is unknown"),
        ({"engines": []}, "list of 1 to"),
        ({"engines": ["openvino", "openvino"]}, "two twins are for openvino"),
        ({"engines": ["a\n"]}, "engines of a twin"),
        ({"by_default": 1}, "neither true nor false"),
        ({"way": 7}, "way of a twin"),
        ({"parity": []}, "not an object"),
        ({"more": 1}, "a twin must hold"),
    ],
)
def test_rules_of_twins(change: dict, message: str) -> None:
    from stamp_deploy.bundle.twins import check_twins

    good = {
        "file": "twin.onnx", "precision": "int8", "engines": ["openvino"], "by_default": False, "way": "smooth",
        "parity": {},
    }  # fmt: skip
    files = {"encoder.onnx": {}, "twin.onnx": {}}
    check_twins([good], files, "encoder.onnx", ("fp32", "int8"))
    with pytest.raises(BundleError, match=message):
        check_twins([{**good, **change}], files, "encoder.onnx", ("fp32", "int8"))


def test_a_twin_must_have_the_shapes_of_the_encoder(twins: Bundle, tmp_path: Path) -> None:
    to_onnx = module("graph.to_onnx")
    model = TinyModel(pathways=4).eval()
    to_onnx.write_encoder(to_onnx.Encoder(model, (0.5,) * 3, (0.2,) * 3), tmp_path / "wide.onnx", 64)
    with pytest.raises(BundleError, match="pathways has the shape"):
        _with_file(twins, tmp_path / "wide.onnx", tmp_path / "bundle")
    assert load_bundle(twins.path).twins == twins.twins
