"""Export: a ViT with a linear head becomes a bundle that says the same, or nothing is left behind."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from support.timm_or_skip import timm_or_skip

torch = pytest.importorskip("torch")
timm = timm_or_skip()

from stamp_deploy.bundle import load_bundle
from stamp_deploy.engine import load_engine
from stamp_deploy.errors import EngineError, ParityError, UsageError

TILE = 64
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def module(name: str):
    """The export package, installed or from the checkout."""
    try:
        return importlib.import_module(f"stamp_deploy.export.{name}")
    except ModuleNotFoundError:
        root = str(Path(__file__).resolve().parents[2])
        if root not in sys.path:
            sys.path.insert(0, root)
        return importlib.import_module(f"export.{name}")


class TinyModel(torch.nn.Module):
    def __init__(self, pathways: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = timm.create_model(
            "vit_tiny_patch16_224", img_size=TILE, num_classes=0, depth=2, embed_dim=48, num_heads=3
        )
        self.pathway = torch.nn.Linear(48, pathways)

    def forward(self, tiles):
        embedding = self.backbone(tiles)
        return embedding, self.pathway(embedding)


def document() -> dict:
    return {
        "name": "tiny", "pfm": {"id": "test/tiny", "licence": "Apache-2.0"}, "tile_px": TILE, "mpp": 0.5,
        "mean": MEAN, "std": STD, "pathways": ["A", "B", "C"], "gene_set_sha256": "0" * 64,
        "tissue": {"method": "saturation-otsu", "min_fraction": 0.25}, "input_range": {}, "adapter": {},
        "training_data": {},
    }  # fmt: skip


@pytest.fixture
def written_once(monkeypatch, tmp_path_factory):
    """The exporter takes seconds: tests of what comes after it share the encoder that it wrote of `TinyModel`."""
    ex = module("export")
    folder = tmp_path_factory.getbasetemp() / "tiny-encoder"
    if not folder.is_dir():
        folder.mkdir()
        ex.write_encoder(
            module("graph.to_onnx").Encoder(TinyModel().eval(), tuple(MEAN), tuple(STD)), folder / "e", TILE
        )
    monkeypatch.setattr(ex, "write_encoder", lambda encoder, path, tile_px: shutil.copy(folder / "e", path))


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """Tissue-coloured noise, smooth at the patch scale, each tile with a shade of its own."""
    rng = np.random.default_rng(3)
    shade = rng.normal([200, 130, 180], 40, size=(40, 1, 1, 3))
    cells = (shade + rng.normal(0, 25, size=(40, 8, 8, 3))).repeat(8, 1).repeat(8, 2)
    return np.clip(cells, 0, 255).astype(np.uint8)


def test_the_bundle_says_what_torch_says(tmp_path, tiles):
    ex = module("export")
    model = TinyModel().eval()
    bundle = ex.export_model(ex.Source(model, model, document()), tmp_path / "bundle", tiles=tiles)
    engine = load_engine(bundle, "onnxruntime", batch=8)
    with torch.no_grad():
        pixels = torch.from_numpy(tiles[:5]).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))
        embedding, pathways = model((pixels - mean) / std)
    found = engine.run(tiles[:5])
    assert np.abs(found.embedding - embedding.numpy()).max() < 1e-5
    assert np.abs(found.pathways - pathways.numpy()).max() < 1e-5
    assert bundle.parity["passed"] is True and bundle.parity["tiles"] == 40
    assert "research use only" in (bundle.path / "card.md").read_text()


def test_batch_size_is_free(tmp_path, tiles, written_once):
    ex = module("export")
    model = TinyModel().eval()
    bundle = ex.export_model(ex.Source(model, model, document()), tmp_path / "bundle", tiles=tiles)
    engine = load_engine(bundle, "onnxruntime", batch=40)
    whole = engine.run(tiles)
    for size in (1, 3):
        part = engine.run(tiles[:size])
        assert np.abs(part.embedding - whole.embedding[:size]).max() < 1e-5


def test_a_merge_that_changes_the_model_leaves_nothing(tmp_path, tiles):
    ex = module("export")
    model, other = TinyModel().eval(), TinyModel().eval()
    with torch.no_grad():
        other.backbone.blocks[0].attn.proj.weight.mul_(1.05)
    with pytest.raises(ParityError, match="merged model does not reproduce"):
        ex.export_model(ex.Source(model, other, document()), tmp_path / "bundle", tiles=tiles)
    assert list(tmp_path.iterdir()) == []


def test_heads_are_exported(tmp_path, tiles, written_once):
    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.score, self.linear = torch.nn.Linear(48, 1), torch.nn.Linear(48, 2)

        def forward(self, x):
            weight = torch.softmax(self.score(x).squeeze(-1), 0)
            return self.linear(weight @ x), weight

    ex = module("export")
    model = TinyModel().eval()
    entry = {
        "name": "msi", "file": "heads/msi.onnx", "kind": "binary", "classes": ["MSS", "MSI"], "temperature": 1.0,
        "thresholds": [0.5], "abstain": None, "details": {},
    }  # fmt: skip
    source = ex.Source(model, model, document(), [(Attention(), entry)])
    bundle = load_bundle(ex.export_model(source, tmp_path / "bundle", tiles=tiles).path)
    assert bundle.heads[0].classes == ("MSS", "MSI")
    logits = ex.run_onnx_head(bundle.path / bundle.heads[0].file, np.zeros((3, 48), np.float32))
    assert logits.shape == (2,)


@pytest.mark.parametrize("bad", [np.zeros((1, TILE, TILE, 3), np.uint8), np.zeros((4, 32, 32, 3), np.uint8)])
def test_unusable_tiles_are_refused(tmp_path, bad):
    ex = module("export")
    model = TinyModel().eval()
    with pytest.raises(UsageError, match="--tiles"):
        ex.export_model(ex.Source(model, model, document()), tmp_path / "bundle", tiles=bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_lower_precisions_are_judged_and_written(tmp_path, tiles, precision, written_once):
    import onnx

    ex = module("export")
    model = TinyModel().eval()
    bundle = ex.export_model(ex.Source(model, model, document()), tmp_path / "bundle", tiles=tiles, precision=precision)
    assert bundle.precision == precision and bundle.parity["passed"] is True
    assert sorted(p.name for p in bundle.path.glob("*.onnx*")) == ["encoder.onnx"]
    graph = onnx.load(bundle.encoder).graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    want = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}[precision]
    assert getattr(onnx.TensorProto, want) in kinds
    if precision != "bf16":  # ONNX Runtime has no bf16 kernels on the CPU
        engine = load_engine(bundle, "onnxruntime", batch=8)
        assert engine.info.precision == precision
        engine.close()
    else:
        with pytest.raises(EngineError, match="cannot load the encoder"):
            load_engine(bundle, "onnxruntime", batch=8)


def test_fp8_is_refused_with_the_reason(tmp_path, tiles):
    ex = module("export")
    with pytest.raises(UsageError, match="no fp8 kernels"):
        ex.export_model(ex.Source(TinyModel(), TinyModel(), document()), tmp_path / "b", tiles=tiles, precision="fp8")


def one_product(weight: np.ndarray):
    """x [n, 1] @ w [1, k] as an ONNX model."""
    from onnx import helper, numpy_helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", 1, ["n", 1])]
    outputs = [helper.make_tensor_value_info("y", 1, ["n", weight.shape[1]])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("value", [1e6, -1e6, np.inf, np.nan])
def test_weights_beyond_fp16_are_refused(value):
    half = importlib.import_module("stamp_deploy.engine.mixed_precision")
    half.convert(one_product(np.float32([[1.0, 6e4]])), "fp16")
    with pytest.raises(ParityError, match="fp16's range"):
        half.convert(one_product(np.float32([[1.0, value]])), "fp16")


def test_large_models_keep_their_weights_beside_the_graph(tmp_path, tiles, monkeypatch):
    import onnx

    ex, graph, half = (
        module("export"),
        module("graph.to_onnx"),
        importlib.import_module("stamp_deploy.engine.mixed_precision"),
    )
    monkeypatch.setattr(graph, "INLINE_LIMIT_BYTES", 1000)
    monkeypatch.setattr(half, "INLINE_LIMIT_BYTES", 1000)
    model = TinyModel().eval()
    bundle = ex.export_model(ex.Source(model, model, document()), tmp_path / "bundle", tiles=tiles, precision="fp16")
    assert sorted(p.name for p in bundle.path.glob("encoder.onnx*")) == ["encoder.onnx", "encoder.onnx.data"]
    tensors = onnx.load(bundle.encoder, load_external_data=False).graph.initializer
    assert {i.value for t in tensors for i in t.external_data if i.key == "location"} == {"encoder.onnx.data"}
    assert load_engine(bundle, "onnxruntime", batch=8).run(tiles[:2]).embedding.shape == (2, 48)


def test_constants_are_folded():
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    fold = module("graph.constant_folding").fold
    nodes = [
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Mul", ["c", "b"], ["d"]),
        helper.make_node("Add", ["x", "d"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.float32([v]), n) for n, v in (("a", 2), ("b", 3))]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights), ir_version=10)
    assert fold(model) == 2 and [node.op_type for node in model.graph.node] == ["Add"]
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == [15.0]
    onnx.checker.check_model(model, full_check=True)
    assert fold(model) == 0


def test_bf16_rounds_to_nearest_even():
    half = importlib.import_module("stamp_deploy.engine.mixed_precision")
    values = torch.cat([torch.randn(1000), torch.tensor([0.0, -0.0, 1.00390625, 3.0e38])])
    model = one_product(values.reshape(1, -1).numpy())
    low = next(t for t in half.convert(model, "bf16").graph.initializer if t.name == "w_bf16")
    assert low.raw_data == values.bfloat16().view(torch.int16).numpy().tobytes()
