"""Where a backbone's learning begins: its last block, and its two parts before and from a block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stamp_deploy.errors import UsageError

AFTER = ("norm", "fc_norm", "conv_head", "bn2", "head", "classifier")
"""What comes after the blocks."""
CONTAINERS = (nn.Sequential, nn.ModuleList)


def last_block(backbone: nn.Module) -> list[nn.Parameter]:
    """Weights of a timm model's last block (or stage) and of all that comes after it: what ``last-block`` trains.

    Batch norms keep their weights: of a few hundred spots they would learn the cohort's stain.

    Raises
    ------
    UsageError
        The model is not built of blocks in a row.
    """
    children = [child for child in backbone.children() if any(True for _ in child.parameters())]
    stacks = [(place, last) for place, child in enumerate(children) if (last := _last_of(child)) is not None]
    if not stacks:
        raise UsageError(
            f"{type(backbone).__name__} has no blocks in a row, so it has no last one",
            remedy='use adapt = "lora" or "full"',
        )
    place, last = stacks[-1]
    chosen = [*last, *children[place + 1 :]]
    still = {id(p) for part in chosen for norm in batch_norms(part) for p in norm.parameters()}
    return [p for part in chosen for p in part.parameters() if id(p) not in still]


def _last_of(stack: nn.Module) -> list[nn.Module] | None:
    """The last part with weights of a stack of blocks, and what norms follow it; None where it is no stack."""
    parts = list(stack.children())
    deep = [i for i, part in enumerate(parts) if any(p.ndim > 1 for p in part.parameters())]
    if not isinstance(stack, CONTAINERS) and len(deep) < 2:
        return None
    return parts[deep[-1] :] if deep else None


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The batch norms in a module, timm's with an activation included."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


class Parts:
    """A backbone in two parts: `trunk`, up to the first block that learns, and `rest`.

    ``rest(trunk(x))`` is what the backbone gives for x. With a frozen trunk, what that gives can be kept.

    Parameters
    ----------
    backbone : nn.Module
        timm's module, without peft's wrapper.
    pool : bool
        Whether the backbone's own pooling makes the embedding; else `rest` gives tokens (``forward_features``).

    Raises
    ------
    UsageError
        A layer before the blocks learns, or the model is neither timm's EfficientNet nor its VisionTransformer.
    """

    def __init__(self, backbone: nn.Module, pool: bool) -> None:
        from timm.models.efficientnet import EfficientNet
        from timm.models.vision_transformer import VisionTransformer

        if not isinstance(backbone, EfficientNet | VisionTransformer):
            raise UsageError(
                f"views cannot be kept for {type(backbone).__name__}, only for timm's EfficientNet and ViT",
                remedy="set cache_views = 0",
            )
        self._model: Any = backbone
        self._pool = pool
        self._tokens = isinstance(backbone, VisionTransformer)
        blocks = list(self._model.blocks)
        learning = [i for i, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters())]
        self.first = learning[0] if learning else len(blocks)
        before = [n for n, p in backbone.named_parameters() if p.requires_grad and self.in_trunk(n)]
        if before:
            raise UsageError(
                f"views cannot be kept: {before[0]} comes before the blocks, and learns", remedy="set cache_views = 0"
            )

    def in_trunk(self, key: str) -> bool:
        """Whether a tensor of the backbone's state_dict belongs to the trunk."""
        first, _, rest = key.partition(".")
        if first == "blocks":
            return int(rest.split(".")[0]) < self.first
        return first not in AFTER

    def trunk(self, x: Tensor) -> Tensor:
        """Normalised tiles [N, 3, T, T] -> what the first learning block gets."""
        m = self._model
        start = self._first_tokens if self._tokens else self._stem
        x = start(x)
        for block in m.blocks[: self.first]:
            x = block(x)
        return x

    def _first_tokens(self, x: Tensor) -> Tensor:
        m = self._model
        return torch.as_tensor(m.norm_pre(m.patch_drop(m._pos_embed(m.patch_embed(x)))))

    def _stem(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self._model.bn1(self._model.conv_stem(x)))

    def rest(self, x: Tensor) -> Tensor:
        """From there on."""
        m = self._model
        for block in m.blocks[self.first :]:
            x = block(x)
        x = m.norm(x) if self._tokens else m.bn2(m.conv_head(x))
        return torch.as_tensor(m.forward_head(x) if self._pool else x)
