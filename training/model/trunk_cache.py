"""Embeddings by way of the frozen trunk, whose work is kept on the disk: runs that share a backbone share it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stamp_deploy.errors import UsageError

from ..augment import crop_centre, normalise, to_unit
from ..cohort import Sample
from .checkpoint import read_tensors, write_tensors
from .stages import Parts
from .stamp_model import RunInfo, StampModel, timm_module

CHUNK = 32


def can_split(model: StampModel) -> bool:
    """Whether a model has a trunk that does not learn."""
    try:
        return model.parts().first > 0
    except UsageError:
        return False


@torch.inference_mode()
def embed_kept(
    model: StampModel, info: RunInfo, sample: Sample, folder: Path, *, frozen: bool = False
) -> NDArray[np.float32]:
    """Embeddings float32 [N, D] of a sample's tiles, as `embed_tiles` gives them.

    What the trunk gives is read from `folder` where it is there already, and written there otherwise.

    Raises
    ------
    UsageError
        The model has no frozen trunk.
    """
    parts = model.parts()
    name = trunk_digest(model, parts)
    model.eval()
    columns = []
    for field in range(model.fields_count):
        path = folder / f"{sample.id}-{pixels_key(info, sample, field, name)}.safetensors"
        if not path.is_file():
            write_tensors(path, {"trunk": _trunk(model, info, sample, field, parts)})
        kept = read_tensors(path)[0]["trunk"]
        columns.append(torch.cat([_rest(model, parts, part, frozen) for part in kept.split(CHUNK)]))
    return torch.cat(columns, dim=1).numpy()


def _rest(model: StampModel, parts: Parts, kept: torch.Tensor, frozen: bool) -> torch.Tensor:
    device = next(model.parameters()).device
    if not frozen:
        return model.pooled(parts.rest(kept.to(device))).float().cpu()
    with model.without_adapter():
        return model.pooled(parts.rest(kept.to(device))).float().cpu()


def _trunk(model: StampModel, info: RunInfo, sample: Sample, field: int, parts: Parts) -> torch.Tensor:
    device, tiles, out = next(model.parameters()).device, sample.tiles(), []
    for start in range(0, len(tiles), CHUNK):
        unit = to_unit(crop_centre(tiles[start : start + CHUNK], info.tile_px)).to(device)
        out.append(parts.trunk(model.view(normalise(unit, info.mean, info.std), field)).cpu())
    return torch.cat(out)


def trunk_digest(model: StampModel, parts: Parts) -> str:
    """SHA-256 over the trunk's weights: two backbones with the same trunk give the same."""
    found = hashlib.sha256(str(parts.first).encode())
    for key, value in sorted(timm_module(model.backbone).state_dict().items()):
        if parts.in_trunk(key):
            found.update(key.encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def pixels_key(info: RunInfo, sample: Sample, field: int, trunk: str) -> str:
    """A name for what the trunk makes of a sample: of its pixels, how they are cut, and the trunk."""
    facts: list[object] = [trunk, field, info.tile_px, info.mpp, info.fields_px, info.view_px, info.mean, info.std]
    facts += [sample.qc.get("image_sha256", str(sample.folder.resolve())), sample.n_spots, sample.tile_px]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
