"""Self-supervised warm-up: a small backbone from random weights learns to see stain and texture before it sees genes.

Two terms, both computed from the pixels of the training sections alone:

- a linear read-out of the embedding predicts the stain and texture statistics of the tile as it is on the disk, from
  a turned and stain-jittered view of it; the statistics are z-scored within the section, so that the stain of a
  section is no part of the task;
- VICReg (Bardes, Ponce & LeCun 2022) keeps two such views of a tile alike, and the dimensions spread and uncorrelated.

With weights of a foundation model this step has no place: leave `warm_up = "none"`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .augment import crop_shifted, normalise, stain_statistics, to_unit, vary
from .config import TrainConfig
from .model import RunInfo, StampModel
from .model.checkpoint import Checkpoint
from .progress import Report
from .sections import TrainSection

LEARNING_RATE, WEIGHT_DECAY, RAMP = 1e-3, 0.05, 0.1
VICREG_WEIGHT, COVARIANCE_WEIGHT = 0.2, 0.04
EXPANDER = 256
POOL_CROPS = 4
"""Crops of each stored tile, drawn once: their statistics cost more than a training step."""


class WarmUp(nn.Module):
    """The backbone with the read-out and the expander, which are thrown away afterwards."""

    def __init__(self, model: StampModel, statistics: int) -> None:
        super().__init__()
        self.model = model
        self.readout = nn.Linear(model.dim, statistics)
        self.expander = nn.Sequential(
            nn.Linear(model.dim, EXPANDER), nn.LayerNorm(EXPANDER), nn.GELU(), nn.Linear(EXPANDER, EXPANDER)
        )

    def forward(self, views: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Views [2 n, 3, T, T] (all first views, then all second), statistics [n, S] -> pretext and VICReg loss."""
        z = self.model.embedding(views)
        pretext = functional.smooth_l1_loss(self.readout(z), wanted.repeat(2, 1))
        first, second = self.expander(z).chunk(2)
        return pretext, vicreg(first, second)


def vicreg(a: Tensor, b: Tensor) -> Tensor:
    """Invariance + variance + .04 covariance, as in the paper (25, 25, 1 divided by 25): [n, E], [n, E] -> scalar."""
    loss = functional.mse_loss(a, b)
    for x in (a, b):
        x = x - x.mean(0)
        loss = loss + functional.relu(1 - (x.var(0) + 1e-4).sqrt()).mean()
        cov = x.T @ x / (len(x) - 1)
        loss = loss + COVARIANCE_WEIGHT * (cov.square().sum() - cov.diagonal().square().sum()) / x.shape[1]
    return loss


def warm_up(
    model: StampModel,
    info: RunInfo,
    sections: Sequence[TrainSection],
    config: TrainConfig,
    checkpoint: Checkpoint,
    report: Report,
) -> list[dict[str, Any]]:
    """Train the backbone in place for `config.warm_up_steps` steps; every parameter of it must be trainable.

    Returns
    -------
    list of dict
        step, pretext and vicreg, every 20 steps (means over them).
    """
    device = next(model.parameters()).device
    torch.manual_seed(config.seed)
    tiles, wanted = crop_pool(sections, info, config)
    trainer = WarmUp(model, wanted.shape[1]).to(device)
    parameters = [p for name, p in trainer.named_parameters() if not name.startswith(("model.path", "model.log"))]
    optimiser = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    history: list[dict[str, Any]] = []
    state = checkpoint.load("warm-up", trainer, optimiser)
    first = int(state["step"]) if state else 0
    history = list(state["history"]) if state else []
    sums = np.array(state["sums"]) if state else np.zeros(2)
    trainer.train()
    report.start("warm-up", config.warm_up_steps, first)
    for step in range(first, config.warm_up_steps):
        rng = np.random.default_rng([config.seed, step, 2])
        rows = torch.from_numpy(rng.choice(len(tiles), min(config.warm_up_batch // 2, len(tiles)), replace=False))
        unit = to_unit(tiles[rows]).to(device)
        views = [vary(unit, rng, hed_jitter=config.hed_jitter, flips=True) for _ in range(2)]
        _set_rate(optimiser, step, config.warm_up_steps)
        pretext, spread = trainer(normalise(torch.cat(views), info.mean, info.std), wanted[rows].to(device))
        optimiser.zero_grad()
        (pretext + VICREG_WEIGHT * spread).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        sums += [float(pretext.detach()), float(spread.detach())]
        done = step + 1
        if done % 20 == 0 or done == config.warm_up_steps:
            count = done % 20 or 20
            history.append({"step": done, "pretext": float(sums[0] / count), "vicreg": float(sums[1] / count)})
            sums[:] = 0
        report.advance(f"pretext {history[-1]['pretext']:.3f}" if history else "")
        checkpoint.save_if_due("warm-up", trainer, optimiser, {"step": done, "history": history, "sums": sums.tolist()})
    report.stop()
    return history


def crop_pool(sections: Sequence[TrainSection], info: RunInfo, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Random crops of the stored tiles, uint8 [M, T, T, 3], and their statistics z-scored within section [M, S]."""
    rng = np.random.default_rng([config.seed, 3])
    crops, statistics = [], []
    for section in sections:
        tiles = section.tiles
        rows = np.arange(len(tiles))
        pieces = [crop_shifted(tiles, rows, info.tile_px, tiles.shape[1], rng) for _ in range(POOL_CROPS)]
        own = torch.from_numpy(np.concatenate(pieces))
        values = torch.cat([stain_statistics(to_unit(part)) for part in own.split(64)])
        values = (values - values.mean(0)) / values.std(0).clamp_min(1e-6)
        crops.append(own)
        statistics.append(values.clamp(-4, 4))
    return torch.cat(crops), torch.cat(statistics)


def _set_rate(optimiser: torch.optim.Optimizer, step: int, steps: int) -> None:
    ramp = min(1.0, (step + 1) / max(1.0, RAMP * steps))
    for group in optimiser.param_groups:
        group["lr"] = LEARNING_RATE * ramp * 0.5 * (1 + math.cos(math.pi * step / steps))
