"""A learned token beside the class token of a vision transformer (MINT): what tissue says of its molecules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stamp_deploy.errors import UsageError

if TYPE_CHECKING:
    from .registry import EmbedRule


def token_width(backbone: nn.Module, embed: EmbedRule) -> int:
    """Width of the tokens of a timm vision transformer.

    Raises
    ------
    UsageError
        The model has no tokens that another could join.
    """
    from timm.models.vision_transformer import VisionTransformer

    if embed == "pool" or not isinstance(backbone, VisionTransformer):
        raise UsageError(
            f"{type(backbone).__name__} gives no tokens that an ST token could join",
            remedy="take a vision transformer, or set st_token = false and w_patches = 0",
        )
    return int(backbone.embed_dim)


def patches_along(backbone: nn.Module, tile_px: int) -> int:
    """Patches along a side of the tile."""
    embed: Any = backbone.patch_embed
    return tile_px // int(embed.patch_size[0])


def tokens_with(backbone: nn.Module, token: Tensor, views: Tensor) -> Tensor:
    """Tokens [N, prefix + 1 + patches, W] of views [N, 3, V, V]: `token` [1, 1, W] is the last of the prefix.

    The same as timm's ``forward_features`` but for the token.
    """
    from timm.models import checkpoint_seq

    m: Any = backbone
    x = m.norm_pre(m.patch_drop(m._pos_embed(m.patch_embed(views))))
    prefix = int(m.num_prefix_tokens)
    x = torch.cat([x[:, :prefix], token.to(x.dtype).expand(x.shape[0], -1, -1), x[:, prefix:]], dim=1)
    if m.grad_checkpointing:
        x = checkpoint_seq(m.blocks, x)
    else:
        for block in m.blocks:
            x = block(x)
    return torch.as_tensor(m.norm(x))
