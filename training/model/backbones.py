"""Small backbones that train from random weights on two cores: a vision transformer with a convolutional stem.

A stem of 3 x 3 convolutions lets a small transformer learn edges and stain from little data (Xiao et al. 2021,
"Early convolutions help transformers see better"). Everything behind the stem is timm's VisionTransformer, so the
LoRA regex, the merge and the export are the same as for the foundation models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .timm_library import import_timm

import_timm()

from timm.models import register_model  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402


class ConvStem(nn.Module):
    """Images [N, 3, T, T] -> tokens [N, (T / 16)^2, D]: four convolutions of stride 2, then a 1 x 1."""

    def __init__(
        self, img_size: int = 112, patch_size: int = 16, in_chans: int = 3, embed_dim: int = 192, **_: Any
    ) -> None:
        super().__init__()
        steps = patch_size.bit_length() - 1
        if patch_size != 1 << steps:
            raise ValueError("the patch size must be a power of two")
        widths = [max(24, embed_dim >> (steps - 1 - i)) for i in range(steps)]
        layers: list[nn.Module] = []
        before = in_chans
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.GroupNorm(8, width), nn.GELU()]
            before = width
        self.proj = nn.Sequential(*layers, nn.Conv2d(before, embed_dim, 1))
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def feat_ratio(self, as_scalar: bool = True) -> Any:
        """Pixels a token; timm asks for it."""
        return max(self.patch_size) if as_scalar else self.patch_size

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


@register_model
def stamp_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """A convolutional-stem transformer; `img_size`, `patch_size`, `embed_dim`, `depth`, `num_heads` as timm's."""
    if pretrained:
        raise ValueError("there are no pretrained weights of stamp_vit")
    for key in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "features_only"):
        kwargs.pop(key, None)
    settings = {"img_size": 112, "patch_size": 16, "embed_dim": 192, "depth": 6, "num_heads": 3} | kwargs
    with torch.device(torch.get_default_device()):
        return VisionTransformer(embed_layer=ConvStem, **settings)
