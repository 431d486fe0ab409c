"""Embeddings by way of the frozen trunk, whose work is kept on the disk: runs that share a backbone share it."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stamp_deploy.errors import UsageError

from ..augment import crop_centre, normalise, to_unit
from ..cohort import Sample
from .checkpoint import read_tensors, write_tensors
from .run_info import RunInfo
from .stages import Parts
from .stamp_model import StampModel, timm_module

CHUNK = 32
"""Tiles that go through a part of the backbone at a time."""


class TrunkCache:
    """A folder of what a model's frozen trunk makes of samples.

    Parameters
    ----------
    model : StampModel
        Its trunk must not learn while this is in use: its weights are hashed once.
    folder : Path
        May be shared by models of any kind: a file's name says what it depends on.

    Raises
    ------
    UsageError
        As `StampModel.parts`; or the first block learns, so that there is no frozen trunk.
    """

    def __init__(self, model: StampModel, info: RunInfo, folder: Path) -> None:
        self.model, self.info, self.folder = model, info, folder
        self._parts = model.parts()
        if self._parts.first == 0:
            raise UsageError("the first block of the backbone learns, so that it has no frozen trunk")
        self._digest = trunk_digest(model, self._parts)

    @torch.inference_mode()
    def embed(self, sample: Sample, *, frozen: bool = False) -> NDArray[np.float32]:
        """Embeddings float32 [N, D] of a sample's tiles, as `embed_tiles` gives them.

        What the trunk gives is read from the folder where it is there already, and written there otherwise.
        """
        self.model.eval()
        columns = []
        for field in range(self.model.fields_count):
            path = self.folder / f"{sample.id}-{pixels_key(self.info, sample, field, self._digest)}.safetensors"
            if not path.is_file():
                write_tensors(path, {"trunk": self._trunk(sample, field)})
            with self.model.without_adapter() if frozen else nullcontext():
                columns.append(embed_rest(self.model, self._parts, read_tensors(path)[0]["trunk"]))
        return torch.cat(columns, dim=1).numpy()

    def _trunk(self, sample: Sample, field: int) -> torch.Tensor:
        model, info = self.model, self.info
        device, tiles, out = next(model.parameters()).device, sample.tiles(), []
        for start in range(0, len(tiles), CHUNK):
            unit = to_unit(crop_centre(tiles[start : start + CHUNK], info.tile_px)).to(device)
            out.append(self._parts.trunk(model.view(normalise(unit, info.mean, info.std), field)).cpu())
        return torch.cat(out)


def embed_rest(model: StampModel, parts: Parts, kept: torch.Tensor) -> torch.Tensor:
    """Embeddings float32 [N, D of one field], on the CPU, of what the trunk gave for N tiles."""
    device = next(model.parameters()).device
    return torch.cat([model.pooled(parts.rest(x.float().to(device))).float().cpu() for x in kept.split(CHUNK)])


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
