"""Embeddings of sections, their tiles dealt out over the processes in blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .autocast import autocast
from .model import RunInfo, StampModel
from .model.embed import BATCH, embed_tiles
from .ranks import Ranks
from .sections import TrainSection

BLOCK = 16 * BATCH
"""Tiles that a process embeds at a time: whole batches, so that blocks give the bits that the section would."""


def embed_sections(
    model: StampModel, info: RunInfo, sections: Sequence[TrainSection], ranks: Ranks, precision: str
) -> list[NDArray[np.float32]]:
    """Embeddings float32 [N, D] of each section, the same in every process.

    Parameters
    ----------
    precision : str
        "bf16" or "fp32", as `autocast` takes it.
    """
    device: torch.device = next(model.parameters()).device
    blocks = [(i, start) for i, s in enumerate(sections) for start in range(0, len(s.target), BLOCK)]
    sizes = [min(BLOCK, len(sections[i].target) - start) for i, start in blocks]

    def embed(number: int) -> NDArray[np.float32]:
        i, start = blocks[number]
        with autocast(device, precision):
            return embed_tiles(model, info, sections[i].tiles[start : start + BLOCK])

    made = ranks.share(sizes, model.dim, embed)
    parts: list[list[NDArray[np.float32]]] = [[] for _ in sections]
    for (i, _), part in zip(blocks, made, strict=True):
        parts[i].append(part)
    return [np.concatenate(own) if own else np.zeros((0, model.dim), np.float32) for own in parts]
