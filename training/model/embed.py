"""What a model makes of stored tiles: embeddings and pathway scores, batch by batch, without augmentation."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from ..augment import crop_centre, normalise, to_unit, turn
from ..cohort.shards import Tiles
from .run_info import RunInfo
from .stamp_model import StampModel

BATCH = 64


@torch.inference_mode()
def embed_tiles(
    model: StampModel,
    info: RunInfo,
    tiles: Tiles,
    *,
    turns: int = 1,
    frozen: bool = False,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """Embeddings float32 [N, D] of the middle of each tile.

    Parameters
    ----------
    tiles : uint8 [N, S, S, 3]
        S is the model's tile or larger.
    turns : int
        Mean over so many of the 8 flips and quarter turns.
    frozen : bool
        Of the model without its adapter.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    width = model.frozen_dim if frozen else model.dim
    out = np.empty((len(tiles), width), np.float32)
    try:
        for start in range(0, len(tiles), batch):
            unit = to_unit(crop_centre(tiles[start : start + batch], info.tile_px)).to(device)
            x = normalise(unit, info.mean, info.std)
            total = torch.zeros(len(x), width, device=device)
            for k in range(turns):
                with model.without_adapter() if frozen else nullcontext():
                    total += model.embedding(turn(x, k))
            out[start : start + len(x)] = (total / turns).float().cpu().numpy()
    finally:
        model.train(was_training)
    return out
