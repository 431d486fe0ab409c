"""Augmented views of every spot, kept as what the first learning block of the backbone gets.

Where only the last blocks learn, all that lies before them gives the same again and again. It is computed once for a
few views of each spot and field; an epoch then costs only the last blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import TrainConfig
from .data import Batch, Batches, batch_of
from .epoch_plan import Rows
from .model import RunInfo, StampModel
from .model.checkpoint import read_tensors, write_tensors
from .model.stages import Parts
from .model.trunk_cache import CHUNK, embed_rest, pixels_key, trunk_digest
from .ranks import Ranks
from .sections import TrainSection
from .varied_tiles import varied_tiles

VIEW_SEED = 0
"""Views do not hang on the run's seed, so that runs of several seeds share them; which view is seen when does."""


@dataclass(eq=False)
class Views:
    """The views of one section and field.

    Attributes
    ----------
    inputs : float16 [V, N, ...]
        What the first learning block gets.
    frozen : float32 [V, N, D]
        Embeddings of the frozen model.
    """

    inputs: Tensor
    frozen: Tensor


class ViewLoader(Batches):
    """Batches out of kept views, as `data.Loader` gives them of tiles: one field a batch, drawn at random, and for each
    spot one of its views.

    Parameters
    ----------
    views : list of list of Views
        Of each section, of each field.
    sections, config, rank, world
        As `Batches`.
    """

    def __init__(
        self,
        sections: Sequence[TrainSection],
        views: Sequence[Sequence[Views]],
        config: TrainConfig,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(sections, config, rank=rank, world=world)
        self.views = views

    def make(self, rows: Rows, epoch: int, number: int) -> Batch:
        """One batch."""
        rng = np.random.default_rng([self.config.seed, epoch, number, self.rank, 2])
        field = int(rng.integers(len(self.views[0])))
        inputs, frozen = [], []
        for i, index in rows:
            kept = self.views[i][field]
            which = torch.from_numpy(rng.integers(0, len(kept.inputs), len(index)))
            spot = torch.from_numpy(index)
            inputs.append(kept.inputs[which, spot].float())
            frozen.append(kept.frozen[which, spot])
        made = batch_of(torch.cat(inputs), self.sections, rows)
        made.frozen, made.field = torch.cat(frozen), torch.tensor(field)
        return made


def keep_views(
    model: StampModel,
    info: RunInfo,
    sections: Sequence[TrainSection],
    config: TrainConfig,
    folder: Path,
    advance: Callable[[], object] = lambda: None,
    *,
    ranks: Ranks | None = None,
) -> list[list[Views]]:
    """The views of all sections, from `folder` where they are there already.

    The first view is the spot as it is; the others are moved, turned and stained a little differently. Of several
    processes each computes the views of its own sections, and then reads those of all.
    """
    parts = model.parts()
    trunk = trunk_digest(model, parts)
    fields = range(model.fields_count)
    paths = [
        [folder / f"{s.sample.id}-{_key(config, info, s, field, trunk)}.safetensors" for field in fields]
        for s in sections
    ]
    owner = ranks.owners([len(s.target) for s in sections]) if ranks is not None else [0] * len(sections)

    def keep_own() -> None:
        for i, section in enumerate(sections):
            for field, path in enumerate(paths[i]):
                if owner[i] == (ranks.rank if ranks is not None else 0) and not path.is_file():
                    inputs, frozen = _compute(model, info, section, config, field, parts)
                    write_tensors(path, {"inputs": inputs, "frozen": frozen})
                advance()

    if ranks is not None:
        ranks.together(keep_own)
    else:
        keep_own()
    return [[_read(path) for path in own] for own in paths]


def _read(path: Path) -> Views:
    tensors, _ = read_tensors(path)
    return Views(tensors["inputs"], tensors["frozen"])


@torch.inference_mode()
def embed_views(model: StampModel, views: Sequence[Views]) -> NDArray[np.float32]:
    """Embeddings float32 [N, D] of a section's spots as they are: of the first view of every field."""
    parts, was_training = model.parts(), model.training
    model.eval()
    columns = [embed_rest(model, parts, field.inputs[0]) for field in views]
    model.train(was_training)
    return torch.cat(columns, dim=1).numpy()


def _key(config: TrainConfig, info: RunInfo, section: TrainSection, field: int, trunk: str) -> str:
    """What a file of views depends on: the pixels, how they are changed, and the trunk."""
    facts: list[object] = [config.cache_views, config.shift_um, config.hed_jitter, config.flips]
    facts.append(pixels_key(info, section.sample, field, trunk))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


@torch.no_grad()
def _compute(
    model: StampModel, info: RunInfo, section: TrainSection, config: TrainConfig, field: int, parts: Parts
) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    inputs: list[Tensor] = []
    frozen: list[Tensor] = []
    reach, tiles = round(config.shift_um / info.mpp), section.tiles
    for view in range(config.cache_views):
        # the same picture of a spot for every field: what differs between fields is the field
        rng = np.random.default_rng([VIEW_SEED, view, section.sample.n_spots])
        for start in range(0, len(section.target), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(section.target)))
            piece = tiles[rows], np.arange(len(rows))
            x = varied_tiles(
                [piece], info.tile_px, info.mean, info.std, rng, reach=reach if view else 0,
                hed_jitter=config.hed_jitter if view else 0.0, flips=config.flips and view > 0,
            )  # fmt: skip
            x = model.view(x.to(device), field)
            with model.without_adapter():
                kept = parts.trunk(x)
                frozen.append(model.pooled(parts.rest(kept)).float().cpu())
            inputs.append(kept.half().cpu())
    model.train(was_training)
    shape = (config.cache_views, len(section.target))
    return (
        torch.cat(inputs).unflatten(0, shape).contiguous(),
        torch.cat(frozen).unflatten(0, shape).contiguous(),
    )
