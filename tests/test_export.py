"""Export: a ViT with a linear head becomes a bundle that says the same, or nothing is left behind."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from stamp_deploy.bundle import load_bundle  # noqa: E402
from stamp_deploy.engine import load_engine  # noqa: E402
from stamp_deploy.errors import ParityError, UsageError  # noqa: E402

TILE = 64
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def module(name: str):
    """The export package, installed or from the checkout."""
    try:
        return importlib.import_module(f"stamp_deploy.export.{name}")
    except ModuleNotFoundError:
        root = str(Path(__file__).resolve().parent.parent)
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


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """Tissue-coloured noise, smooth at the patch scale."""
    rng = np.random.default_rng(3)
    cells = rng.normal([200, 130, 180], 40, size=(40, 8, 8, 3)).repeat(8, 1).repeat(8, 2)
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


def test_batch_size_is_free(tmp_path, tiles):
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


def test_heads_are_exported(tmp_path, tiles):
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
    logits = ex.run_onnx_head(bundle.head_path(bundle.heads[0]), np.zeros((3, 48), np.float32))
    assert logits.shape == (2,)


@pytest.mark.parametrize("bad", [np.zeros((1, TILE, TILE, 3), np.uint8), np.zeros((4, 32, 32, 3), np.uint8)])
def test_unusable_tiles_are_refused(tmp_path, bad):
    ex = module("export")
    model = TinyModel().eval()
    with pytest.raises(UsageError, match="--tiles"):
        ex.export_model(ex.Source(model, model, document()), tmp_path / "bundle", tiles=bad)
    assert list(tmp_path.iterdir()) == []
