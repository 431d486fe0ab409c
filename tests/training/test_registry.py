"""The table of foundation models: every row builds, with the right length and size, and takes LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.timm_or_skip import timm_or_skip

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
timm_or_skip()

from stamp_deploy.errors import UsageError
from stamp_deploy.hashing import sha256_file
from stamp_deploy.training.model import LoraSettings, RunInfo, add_lora, build_model, measured_dim, merge_lora
from stamp_deploy.training.model.registry import REGISTRY, build_backbone, get_pfm, resolve_kwargs

GIANTS = ("h-optimus-0", "h-optimus-1", "prov-gigapath", "midnight-12k", "uni2-h", "virchow2")


def millions(module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize("pfm_id", REGISTRY)
def test_every_row_builds_with_its_length_and_size(pfm_id: str) -> None:
    pfm = REGISTRY[pfm_id]
    backbone = build_backbone(pfm.timm_name, pfm.kwargs, device="meta")
    assert measured_dim(backbone, pfm.embed) == pfm.dim
    assert millions(backbone) == pytest.approx(pfm.params_m, rel=0.005, abs=0.06)
    assert all(0 < s < 1 for s in (*pfm.mean, *pfm.std))
    assert pfm.licence
    if "ND" in pfm.licence:
        assert not pfm.share_merged


@pytest.mark.parametrize("pfm_id", GIANTS)
def test_giants_take_lora_on_attention_only(pfm_id: str) -> None:
    pfm = REGISTRY[pfm_id]
    backbone = build_backbone(pfm.timm_name, pfm.kwargs, device="meta")
    depth = len(backbone.blocks)
    adapted = add_lora(backbone, LoraSettings())
    names = {n.rsplit(".lora_", 1)[0] for n, _ in adapted.named_parameters() if ".lora_" in n}
    assert len(names) == 2 * depth  # qkv and proj of every block
    assert not any("patch_embed" in n for n in names)
    learning = sum(p.numel() for p in adapted.parameters() if p.requires_grad) / 1e6
    assert 0 < learning < 0.01 * pfm.params_m


def test_a_giant_learns_through_its_adapter_alone() -> None:
    """Blocks of H-optimus-0 (1.1 thousand million parameters) at their full width, 3 of the 40 for the memory's sake;
    all 40 are built and adapted above. A backward pass with checkpointed gradients reaches the adapter only."""
    pfm = REGISTRY["h-optimus-0"]
    kwargs = {**pfm.kwargs, "img_size": 28, "depth": 3}
    backbone = build_backbone(pfm.timm_name, kwargs, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.fill_(0.01 if parameter.ndim > 1 else 1.0)
    backbone.set_grad_checkpointing(True)
    adapted = add_lora(backbone, LoraSettings(r=4, dropout=0.0))
    out = adapted.forward_features(torch.randn(1, 3, 28, 28))[:, 0]
    assert out.shape == (1, pfm.dim)
    (out * torch.linspace(-1, 1, pfm.dim)).sum().backward()
    reached = [n for n, p in adapted.named_parameters() if p.grad is not None]
    assert len(reached) == 2 * 2 * 3 and all(".lora_" in n for n in reached)


@pytest.mark.parametrize("pfm_id", ["lunit-vits16", "demo-vit", "stamp-vit-s"])
def test_small_models_give_their_embedding_and_merge(pfm_id: str) -> None:
    pfm = REGISTRY[pfm_id]
    info = RunInfo(
        pfm_id, pfm.timm_name, dict(pfm.kwargs), pfm.embed, pfm.mean, pfm.std, pfm.tile_px, pfm.mpp, ("A", "B"),
        "0" * 64, pfm.dim, lora=LoraSettings(),
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_model(info).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.02)
        tiles = torch.randn(2, 3, pfm.tile_px, pfm.tile_px)
        embedding, pathways = model(tiles)
        merged = merge_lora(model)
        again, _ = merged(tiles)
        with model.without_adapter():
            frozen = model.embedding(tiles)
    assert embedding.shape == (2, pfm.dim) and pathways.shape == (2, 2)
    assert torch.allclose(embedding, again, atol=1e-4)
    assert not torch.allclose(embedding, frozen, atol=1e-3)
    plain = build_backbone(pfm.timm_name, pfm.kwargs)
    assert set(merged.backbone.state_dict()) == set(plain.state_dict())


def test_the_embedding_rules() -> None:
    tokens = torch.arange(2 * 7 * 3, dtype=torch.float32).view(2, 7, 3)

    class Fake(torch.nn.Module):
        num_prefix_tokens = 5  # class token and four registers

        def forward_features(self, x):
            return tokens

    from stamp_deploy.training.model import StampModel

    for rule, expected in {
        "cls": tokens[:, 0],
        "mean": tokens[:, 5:].mean(1),
        "cls+mean": torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1),
    }.items():
        model = StampModel(Fake(), rule, 1, dim=expected.shape[1])  # type: ignore[arg-type]
        assert torch.equal(model.embedding(torch.zeros(2, 3, 1, 1)), expected)


def test_unknown_names_are_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError, match="no foundation model is called") as caught:
        get_pfm("uni3")
    assert "uni2-h" in str(caught.value)
    with pytest.raises(UsageError, match="timm knows no model"):
        get_pfm("timm/no_such_model")
    assert get_pfm("timm/resnet18").embed == "pool"
    with pytest.raises(UsageError, match="not a known layer"):
        resolve_kwargs({"mlp_layer": "os.system"})


def test_weights_come_from_a_file_that_fits(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    pfm = REGISTRY["demo-vit"]
    source = build_backbone(pfm.timm_name, pfm.kwargs)
    path = tmp_path / "weights.safetensors"
    save_file({f"model.{k}": v for k, v in source.state_dict().items()}, path)  # a prefix that hubs add
    loaded = build_backbone(pfm.timm_name, pfm.kwargs, weights=path)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in source.state_dict().items())
    with pytest.raises(UsageError, match="SHA-256"):
        build_backbone(pfm.timm_name, pfm.kwargs, weights=path, sha256="0" * 64)
    with pytest.raises(UsageError, match="of another model"):
        build_backbone("vit_tiny_patch16_224", {}, weights=path)
    with pytest.raises(UsageError, match="no such weights"):
        build_backbone(pfm.timm_name, pfm.kwargs, weights=tmp_path / "gone.safetensors")
    pickled = tmp_path / "weights.pt"
    torch.save(source.state_dict(), pickled)
    with pytest.raises(UsageError, match="no hash vouches"):
        build_backbone(pfm.timm_name, pfm.kwargs, weights=pickled)
    again = build_backbone(pfm.timm_name, pfm.kwargs, weights=pickled, sha256=sha256_file(pickled))
    assert torch.equal(again.cls_token, source.cls_token)
