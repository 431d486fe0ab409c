"""Attention as every runtime fuses it: MatMul, Softmax, MatMul, with one product each for queries, keys and values.

One product for all three gives a tensor that must be cut into its parts and turned three times, which costs a
processor more time than it saves; see docs/engine.md for the numbers. Both changes last as long as the export; the
weights are shared, not copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def plain_attention(module: nn.Module) -> Iterator[None]:
    """Trace attention in its plain form.

    timm's layers have a switch; other modules get the MATH form of scaled_dot_product_attention, and keep their
    projections as they are.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fused = [part for part in module.modules() if getattr(part, "fused_attn", False)]
    for part in fused:
        part.fused_attn = False  # type: ignore[assignment]
    try:
        with sdpa_kernel(SDPBackend.MATH), ExitStack() as stack:
            for part in [part for part in module.modules() if _separable(part)]:
                stack.enter_context(_separate(part))
            yield
    finally:
        for part in fused:
            part.fused_attn = True  # type: ignore[assignment]


def _separable(part: nn.Module) -> bool:
    """timm's own attention (no subclass), without the newer layers between attention and projection."""
    from timm.models.vision_transformer import Attention

    plain = type(part) is Attention and type(part.qkv) is nn.Linear
    return plain and getattr(part, "gate", None) is None and isinstance(getattr(part, "norm", None), nn.Identity | None)


@contextmanager
def _separate(part: Any) -> Iterator[None]:
    """Let `part` compute queries, keys and values by linear layers of their own, which share qkv's memory."""
    parts = dict(zip(("export_q", "export_k", "export_v"), _linears(part.qkv), strict=True))
    for name, linear in parts.items():
        setattr(part, name, linear)
    part.forward = MethodType(_forward, part)
    try:
        yield
    finally:
        del part.forward
        for name in parts:
            delattr(part, name)


def _linears(qkv: nn.Linear) -> list[nn.Linear]:
    width, count = qkv.in_features, qkv.out_features // 3
    found = []
    for number in range(3):
        linear = nn.Linear(width, count, bias=qkv.bias is not None, device="meta")
        rows = slice(number * count, (number + 1) * count)
        linear.weight = nn.Parameter(qkv.weight.detach()[rows], requires_grad=False)
        if qkv.bias is not None:
            linear.bias = nn.Parameter(qkv.bias.detach()[rows], requires_grad=False)
        found.append(linear)
    return found


def _forward(self: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """What timm's attention computes in evaluation; masks are not for image encoders."""
    if attn_mask is not None or is_causal:
        raise NotImplementedError("attention with a mask cannot be exported")
    count, tokens, _ = x.shape
    shape = (count, tokens, self.num_heads, self.head_dim)
    q, k, v = (part(x).reshape(shape).transpose(1, 2) for part in (self.export_q, self.export_k, self.export_v))
    q, k = self.q_norm(q), self.k_norm(k)
    weights = torch.softmax((q * self.scale) @ k.transpose(-2, -1), dim=-1)
    found: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(count, tokens, -1))
    return found
