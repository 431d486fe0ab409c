"""The figures by which docs/training.md argues that no weights need be sharded, counted again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra [train]")
peft = pytest.importorskip("peft", reason="training needs the extra [train]")
pytest.importorskip("timm", reason="training needs the extra [train]")

from stamp_deploy.training.config import TrainConfig
from stamp_deploy.training.model.registry import build_backbone, get_pfm

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
MODELS = ("uni", "h-optimus-0")


def told(label: str) -> list[float]:
    """The numbers of a row of the table, one a model."""
    row = re.search(rf"^\| {re.escape(label)} \| (.+) \|$", DOCS, re.MULTILINE)
    assert row is not None, label
    return [float(cell.replace(",", "")) for cell in row[1].split(" | ")]


def counted(name: str, *, checkpointing: bool) -> tuple[int, int, float]:
    """Weights, LoRA weights, and MB that autograd keeps of one tile: without any memory, on the meta device."""
    pfm, config = get_pfm(name), TrainConfig()
    backbone = build_backbone(pfm.timm_name, dict(pfm.kwargs), device="meta")
    weights = sum(p.numel() for p in backbone.parameters())
    settings = peft.LoraConfig(
        r=config.lora_r, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout, target_modules=pfm.lora_target
    )
    backbone.requires_grad_(False)
    peft.inject_adapter_in_model(settings, backbone)
    backbone.set_grad_checkpointing(checkpointing)
    backbone.train()
    own = {p.untyped_storage()._cdata for p in backbone.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone(torch.empty(1, 3, pfm.tile_px, pfm.tile_px, device="meta"))
    adapter = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    return weights, adapter, sum(t.untyped_storage().nbytes() for t in kept.values()) / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(MODELS)), ids=MODELS)
def test_what_a_gpu_must_hold(place: int) -> None:
    weights, adapter, kept = counted(MODELS[place], checkpointing=False)
    assert told("weights, millions")[place] == round(weights / 1e6, 1)
    assert told("weights, GB")[place] == round(weights * 4 / 1e9, 2)
    assert told("LoRA weights")[place] == adapter
    assert told("their gradients and AdamW's moments, MB")[place] == round(adapter * 12 / 1e6, 1)
    assert kept == pytest.approx(told("activations kept, MB per tile")[place], rel=0.2), (
        "differs a little between versions"
    )
    least = counted(MODELS[place], checkpointing=True)[2]
    assert least == pytest.approx(told("the same with `gradient_checkpointing`")[place], rel=0.2)


def test_the_sums_of_the_text() -> None:
    weights, moments, plain, kept = (
        told(label)[1]
        for label in (
            "weights, GB", "their gradients and AdamW's moments, MB", "activations kept, MB per tile",
            "the same with `gradient_checkpointing`",
        )
    )  # fmt: skip
    config = TrainConfig()
    batch = config.batch_slides * config.batch_spots
    block = round(plain / 40)

    def need(tiles: int) -> float:
        return weights + moments / 1e3 + tiles * (kept + block) / 1e3

    slides, spots = config.batch_slides, config.batch_spots
    assert told(f"default batch of {slides} x {spots} = {batch} tiles, with checkpointing") == [round(need(batch))]
    assert told(f"`batch_slides = 1` ({spots} tiles), with checkpointing") == [round(need(spots))]
    assert told("default batch, without checkpointing") == pytest.approx([batch * plain / 1e3], rel=0.01)
    full = 'weights, gradients and optimiser state of full fine-tuning (`adapt = "full"`), beside the activations'
    assert told(full) == [round(4 * weights, 1)]
    assert f"save {weights * 7 / 8:.1f} GB per GPU" in DOCS and f"fetch {weights * 2 * 7 / 8:.1f} GB" in DOCS
    assert f"exchanges {told('LoRA weights')[1] * 4 / 1e6:.1f} MB" in DOCS
