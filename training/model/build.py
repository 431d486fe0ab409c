"""A run's model out of what its run.json says: backbone, adapter, heads; and the adapter folded into the backbone."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn

from stamp_deploy.errors import UsageError

from .fields import Fields
from .registry import EmbedRule, build_backbone
from .run_info import LoraSettings, RunInfo
from .st_token import token_width
from .stages import last_block
from .stamp_model import StampModel, is_peft, timm_module

ADAPT_MODES = ("lora", "full", "last-block", "frozen")


def measured_dim(backbone: nn.Module, embed: EmbedRule) -> int:
    """Length of the embedding that a rule gives."""
    width = int(getattr(backbone, "num_features", 0) or backbone.embed_dim)  # type: ignore[arg-type]
    return 2 * width if embed == "cls+mean" else width


def add_lora(backbone: nn.Module, settings: LoraSettings) -> nn.Module:
    """Freeze a timm backbone and give its attention layers LoRA adapters.

    Raises
    ------
    UsageError
        The regex matches no layer.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=settings.target,
        bias="none",
    )
    try:
        return get_peft_model(backbone, config)
    except ValueError as error:
        raise UsageError(
            f"LoRA cannot be added: {error}", remedy='set adapt = "full", or a target regex that names linear layers'
        ) from error


def build_model(info: RunInfo, *, weights: Path | None = None, sha256: str = "", device: str = "cpu") -> StampModel:
    """The model that a run.json describes, with fresh heads and adapters.

    The trainable parameters are those of `info.adapt`: ``lora`` the adapters, ``full`` all, ``last-block`` the last
    block or stage and what comes after it, without batch norms, ``frozen`` none; the heads always.
    """
    if info.adapt not in ADAPT_MODES:
        raise UsageError(f"adapt = {info.adapt} is unknown", remedy="use one of: " + ", ".join(ADAPT_MODES))
    backbone = build_backbone(info.timm_name, info.timm_kwargs, weights=weights, sha256=sha256, device=device)
    dim = measured_dim(backbone, info.embed)
    if info.adapt == "lora":
        backbone = add_lora(backbone, info.lora or LoraSettings())
    elif info.adapt != "full":
        backbone.requires_grad_(False)
        if info.adapt == "last-block":
            for parameter in last_block(backbone):
                parameter.requires_grad_(True)
    fields = Fields(info.fields_px, info.view_px) if info.fields_px else None
    dim *= len(info.fields_px) or 1
    st_width = token_width(timm_module(backbone), info.embed) if info.st_token else 0
    pathways, projection = len(info.pathway_names), info.projection_dim
    model = StampModel(
        backbone, info.embed, pathways, dim=dim + st_width, projection_dim=projection, fields=fields, st_width=st_width
    )
    return model if device == "meta" else model.to(device)


def merge_lora(model: StampModel) -> StampModel:
    """Fold the adapter into plain timm weights, in float32, and give a model without peft.

    The argument is left alone. The returned backbone's state_dict keys are timm's.
    """
    merged = copy.deepcopy(model).float().eval()
    if is_peft(merged.backbone):
        merged.backbone = merged.backbone.merge_and_unload()  # type: ignore[operator]
    return merged
