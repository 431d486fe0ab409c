"""Which matrix products of a training step are computed in bf16."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch


def use_bf16(device: torch.device, precision: str) -> bool:
    """Whether bf16 is asked for and worth it: a CPU without AVX-512 BF16 computes it ten times slower than fp32."""
    if precision != "bf16":
        return False
    return device.type != "cpu" or bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 for matrix products where `use_bf16`; weights, optimiser and losses stay in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(device, precision))
