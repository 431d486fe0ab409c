"""The folder of a finished run: a former one cleared away, what was learned written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import TrainConfig
from .ingredients import FILE as INGREDIENTS_FILE
from .ingredients import save_ingredients
from .model import FROZEN_FILE, StampModel, is_peft, save_run
from .objective import Alignment
from .position import Position
from .run_setup import Start, weights_of
from .validation import mean_cosine


def clear_run(out: Path) -> None:
    """Remove a former run's files, run.json first; foreign files stay."""
    for name in ("run.json", "config.toml", "metrics.csv", "backbone.safetensors", "backbone.json",
                 "adapter.safetensors", "heads.safetensors", FROZEN_FILE, INGREDIENTS_FILE):  # fmt: skip
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)


def metrics_of(
    model: StampModel,
    config: TrainConfig,
    start: Start,
    position: Position,
    frozen: list[NDArray[np.float32]],
    embeddings: list[NDArray[np.float32]],
) -> dict[str, Any]:
    """The `metrics` of run.json that data and training decide.

    Parameters
    ----------
    frozen, embeddings : list of array, float32 [spots, D]
        Embeddings of each training section before the training and after it.
    """
    metrics: dict[str, Any] = {
        "epochs": position.epoch,
        "steps": position.step,
        "best_epoch": position.best_epoch if start.validation else position.epoch,
        "validation_r": position.best_r,
        "pathway_head": "ridge" if config.refits_head else "trained",
        "training_samples": [s.sample.id for s in start.train],
        "validation_samples": [s.sample.id for s in start.validation],
    }
    if is_peft(model.backbone) or config.adapt in ("full", "last-block"):
        # the anchor's guard: how far the embedding has moved from where training started
        metrics["cosine_to_frozen"] = mean_cosine(embeddings, [e[:, : model.frozen_dim] for e in frozen])
    return metrics


def write_run(out: Path, step: Alignment, config: TrainConfig, start: Start, metrics: dict[str, Any]) -> None:
    """Write the model, and run.json last; the checkpoint is removed."""
    info = replace(start.info, metrics=metrics)
    weights, sha256 = weights_of(config)
    if sha256:
        info.software["weights_sha256"] = sha256
    save_ingredients(out, step.ingredients)
    save_run(out, step.model.cpu(), info, weights=weights, copy_backbone=config.copy_backbone)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
