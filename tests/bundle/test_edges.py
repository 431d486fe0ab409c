"""The last value that is taken, and the first that is not: sizes, cuts, shapes of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from support.bundle_factory import make_bundle, write_bundle_json

from stamp_deploy.bundle import load_bundle
from stamp_deploy.bundle.onnx_scan import scan
from stamp_deploy.bundle.reference import COMPONENTS, _embedding
from stamp_deploy.bundle.schema import MAX_FILE_BYTES, validate
from stamp_deploy.bundle.strict_json import MAX_JSON_BYTES
from stamp_deploy.bundle.triton import write_repository
from stamp_deploy.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def document(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "bundle.json").read_text()))


def test_a_bundle_json_of_16_mib_is_read_whole_and_no_more_is(folder: Path) -> None:
    path = folder / "bundle.json"
    text = path.read_bytes()
    path.write_bytes(b" " * (MAX_JSON_BYTES - len(text)) + text)
    assert load_bundle(folder).name == "factory-bundle"
    path.write_bytes(b" " * (MAX_JSON_BYTES + 1 - len(text)) + text)
    with pytest.raises(BundleError, match=f"larger than {16 << 20} bytes"):
        load_bundle(folder)


def test_a_file_of_64_gib_may_be_listed_and_no_larger_one(document: dict[str, Any]) -> None:
    assert MAX_FILE_BYTES == 68_719_476_736
    files = {name: dict(entry) for name, entry in document["files"].items()}
    files["encoder.onnx"]["size"] = 64 << 30
    validate({**document, "files": files})
    for wrong in ((64 << 30) + 1, -1, True, 1.0):
        files["encoder.onnx"]["size"] = wrong
        with pytest.raises(BundleError, match=r"size of 'encoder\.onnx' is not 0 to 68719476736"):
            validate({**document, "files": files})


@pytest.mark.parametrize(
    ("classes", "cuts", "fits"),
    [([], [0.1, 0.2], True), (["one"], [0.1, 0.2], True), (["low", "high"], [0.1], True),
     (["low", "middle", "high"], [0.1, 0.2], True), (["low", "high"], [0.1, 0.2], False), (["low", "high"], [], False)],
)  # fmt: skip
def test_risk_groups_are_one_more_than_cuts(
    document: dict[str, Any], classes: list[str], cuts: list[float], fits: bool
) -> None:
    heads = [dict(head) for head in document["heads"]]
    survival = next(head for head in heads if head["kind"] == "survival")
    survival.update(classes=classes, thresholds=cuts)
    if fits:
        validate({**document, "heads": heads})
    else:
        with pytest.raises(BundleError, match=f"must be {len(classes) - 1} for {len(classes)} risk groups"):
            validate({**document, "heads": heads})


@pytest.mark.parametrize(("rows", "columns"), [(4, 1), (4, 3), (4, COMPONENTS)])
def test_a_whitening_of_embeddings_that_fits(rows: int, columns: int) -> None:
    value = {"centre": [0.0] * 4, "whiten": [[0.5] * columns] * rows, "median": 1.0, "tiles": 10}
    found = _embedding(value, 4)
    assert found is not None and found.whiten.shape == (rows, columns) and found.median == 1.0
    for dim, wide in ((5, columns), (3, columns), (4, COMPONENTS + 1)):
        with pytest.raises(BundleError, match=f"must be {dim} by 1 to {COMPONENTS}"):
            _embedding({**value, "whiten": [[0.5] * wide] * rows}, dim)


def test_the_newest_opset_of_the_standard_domain_counts(tmp_path: Path) -> None:
    def opset(*imports: Any) -> int:
        ends = [[onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None])] for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", *ends)
        model = onnx.helper.make_model(graph, opset_imports=list(imports))
        return scan(model.SerializeToString(), tmp_path / "x.onnx").opset

    named = onnx.helper.make_opsetid
    assert opset(named("", 17), named("ai.onnx.ml", 30)) == 17
    assert opset(named("ai.onnx", 21), named("", 18)) == 21
    assert opset(onnx.OperatorSetIdProto(domain="")) == 0


def test_large_tensors_go_to_triton_beside_their_graph(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "encoder.onnx")
    onnx.save(
        model, folder / "encoder.onnx", save_as_external_data=True, location="encoder.onnx.data", size_threshold=0
    )
    document = json.loads((folder / "bundle.json").read_text())
    write_bundle_json(folder, {k: v for k, v in document.items() if k not in ("files", "schema_version")})
    write_repository(load_bundle(folder), tmp_path / "repo")
    placed = tmp_path / "repo" / "factory-bundle" / "1"
    assert sorted(path.name for path in placed.iterdir()) == ["encoder.onnx", "encoder.onnx.data"]
    assert (placed / "encoder.onnx.data").read_bytes() == (folder / "encoder.onnx.data").read_bytes()
    assert "count: 1" in (placed.parent / "config.pbtxt").read_text()
