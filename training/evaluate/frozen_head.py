"""The frozen model with the same head as a run: what the run's head would have been without adapting the backbone.

The head sees the stored embeddings of the frozen model, without augmentation, and is fitted as the run's was: the same
targets, the same start, the same losses, rates and number of steps; or ridge, where the run's head is ridge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..cohort import Sample
from ..config import TrainConfig
from ..data import batch_of, planned
from ..gene_sets import GeneSets
from ..losses import correlation_loss, regression_loss
from ..model.ridge_heads import set_ridge_head
from ..schedule import rate_factor
from ..sections import TrainSection, make_sections, platform_statistics
from .runs import Run


def frozen_head(run: Run, sets: GeneSets, train: Sequence[Sample], test: Sequence[Sample]) -> list[NDArray[np.float32]]:
    """Scores float32 [N, P] of the test samples.

    Parameters
    ----------
    run : Run
        One that still has its frozen model, and whose head predicts `sets`.
    train : sequence of Sample
        Of the run's training cohort; those that the run only stopped on are left out.
    """
    config = run.config
    learned = set(run.info.metrics.get("training_samples", [s.id for s in train]))
    samples = [s for s in train if s.id in learned]
    statistics = platform_statistics(samples) if config.score == "zmean" else None
    sections = make_sections(config, samples, sets, (), statistics=statistics)
    embeddings = [run.frozen(s) for s in samples]
    torch.manual_seed(config.seed)
    head = nn.Linear(embeddings[0].shape[1], len(sets))
    if config.refits_head or config.head_init == "ridge":
        set_ridge_head(head, embeddings, sections)
    if not config.refits_head:
        epochs = int(run.info.metrics.get("best_epoch", config.epochs))
        _train(head, embeddings, sections, config, epochs)
    with torch.inference_mode():
        return [head(torch.from_numpy(run.frozen(s))).numpy() for s in test]


def _train(
    head: nn.Linear,
    embeddings: Sequence[NDArray[np.float32]],
    sections: Sequence[TrainSection],
    config: TrainConfig,
    epochs: int,
) -> None:
    """The head's part of the loop: the batches and losses of the run, on embeddings that do not move."""
    optimiser = torch.optim.AdamW(head.parameters(), lr=config.lr_heads, weight_decay=config.weight_decay)
    step, total = 0, 0
    for epoch in range(epochs):
        plan = planned(sections, config, epoch)
        total = total or -(-len(plan) // config.accumulation) * config.epochs
        for number, rows in enumerate(plan, 1):
            x = torch.cat([torch.from_numpy(embeddings[i][index]) for i, index in rows])
            batch = batch_of(x, sections, rows)
            predicted, target = head(x), batch.target * batch.mask
            loss = config.w_regression * regression_loss(predicted, target, batch.mask)
            if config.w_correlation > 0:
                loss = loss + config.w_correlation * correlation_loss(predicted, target, batch.mask, batch.slide)
            (loss / config.accumulation).backward()
            if number % config.accumulation and number < len(plan):
                continue
            optimiser.param_groups[0]["lr"] = config.lr_heads * rate_factor(step, total, config.warmup_fraction)
            nn.utils.clip_grad_norm_(head.parameters(), config.clip)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
