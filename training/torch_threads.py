"""How many threads torch computes with on the CPU."""

from __future__ import annotations

import torch

from ..system.processor import usable_cores


def set_torch_threads(wanted: int = 0) -> None:
    """Let torch compute with so many threads in this process.

    Parameters
    ----------
    wanted : int
        0 leaves torch its own choice, lowered to the cores that this process may use: torch does not see a container's
        limit of CPU time, and threads beyond it only wait.
    """
    chosen = wanted or min(torch.get_num_threads(), usable_cores())
    if chosen != torch.get_num_threads():
        torch.set_num_threads(chosen)
