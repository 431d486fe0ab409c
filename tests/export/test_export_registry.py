"""Every architecture of the registry goes through export, small: one block, narrow, every feature kept.

Where TensorRT-RTX is installed it builds an engine of each exported graph in fp32 and fp16, on any machine: no GPU is
needed to compile, only to run.
"""

from __future__ import annotations

import importlib
import json
from importlib.util import find_spec

import numpy as np
import pytest
from support.timm_or_skip import timm_or_skip

torch = pytest.importorskip("torch")
timm_or_skip()

from stamp_deploy.engine import mixed_precision as half
from stamp_deploy.engine import tensorrt_plan as plan
from stamp_deploy.training.model import StampModel, measured_dim
from stamp_deploy.training.model.registry import REGISTRY, build_backbone

SMALL = {"depth": 1, "num_heads": 2, "embed_dim": 48}
"""48 times the MLP ratios of the table are whole, even numbers, which SwiGLUPacked needs."""


def signature(pfm) -> str:
    """Models that differ in weights and statistics only share an architecture."""
    return json.dumps([pfm.timm_name, pfm.kwargs, pfm.embed, pfm.dim], sort_keys=True)


GROUPS: dict[str, list[str]] = {}
for _id, _pfm in REGISTRY.items():
    GROUPS.setdefault(signature(_pfm), []).append(_id)


def small_model(pfm, tile_px: int) -> torch.nn.Module:
    """The registry's architecture with random weights, LayerScale wide open so that its block counts."""
    torch.manual_seed(0)
    transformer = "efficientnet" not in pfm.timm_name
    kwargs = {**pfm.kwargs, **(SMALL if transformer else {})}
    if transformer and not kwargs.get("dynamic_img_size"):
        kwargs["img_size"] = tile_px
    backbone = build_backbone(pfm.timm_name, kwargs)
    for name, parameter in backbone.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.5, 1.0)
    return StampModel(backbone, pfm.embed, 3, dim=measured_dim(backbone, pfm.embed)).eval()


def tissue(tile_px: int, count: int = 12) -> np.ndarray:
    rng = np.random.default_rng(1)
    shade = rng.normal([200, 130, 180], 40, size=(count, 1, 1, 3))
    return np.clip(shade + rng.normal(0, 25, size=(count, tile_px, tile_px, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("ids", GROUPS.values(), ids=lambda ids: "=".join(ids))
def test_exported_and_compiled(ids, tmp_path):
    ex = importlib.import_module("stamp_deploy.export.export")
    pfm = REGISTRY[ids[0]]
    tile_px = 56 if "patch14" in pfm.timm_name or "patch8" in pfm.timm_name else 64
    model = small_model(pfm, tile_px)
    document = {
        "name": ids[0], "pfm": {"id": ids[0], "licence": pfm.licence}, "tile_px": tile_px, "mpp": pfm.mpp,
        "mean": list(pfm.mean), "std": list(pfm.std), "pathways": ["A", "B", "C"], "gene_set_sha256": "0" * 64,
        "tissue": {}, "input_range": {}, "adapter": {}, "training_data": {},
    }  # fmt: skip
    bundle = ex.export_model(ex.Source(model, model, document), tmp_path / "bundle", tiles=tissue(tile_px))
    assert bundle.parity["passed"] and bundle.embedding_dim == model.dim
    assert bundle.parity["stages"]["merged -> ONNX"]["max_abs"] < 1e-5

    if find_spec("tensorrt_rtx_bindings") is None:
        return
    rtx = plan.load_module("tensorrt-rtx")
    half.convert_file(bundle.encoder, tmp_path / "fp16.onnx", "fp16")
    full, low = (
        len(plan.build_plan(rtx, path, tile_px=tile_px, batch=4)) for path in (bundle.encoder, tmp_path / "fp16.onnx")
    )
    assert full > 10_000 and low > 10_000
