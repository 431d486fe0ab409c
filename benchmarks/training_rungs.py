"""The ladder of bench_training.py: its rungs, and which rows and differences its table has."""

from __future__ import annotations

from typing import Any

LORA: dict[str, Any] = {"adapt": "lora", "lr": 3e-3, "epochs": 12}
RUNGS: dict[str, dict[str, Any]] = {
    "last_stage": {},
    "shuffled": {"control": "shuffled"},
    "random_sets": {"control": "random-sets"},
    "lora_r8": {**LORA, "lora_r": 8, "lora_alpha": 16.0},
    "lora_r32": {**LORA, "lora_r": 32, "lora_alpha": 64.0},
}
FULL: dict[str, Any] = {"adapt": "full", "lr": 3e-5, "cache_views": 0}
ONE_SEED = ("full_finetune",)
ROWS = {
    "floor_29_features": "features_29/baseline",
    "depth_only": "depth_only/baseline",
    "frozen_head": "frozen_head/head",
    "frozen_ridge": "frozen_ridge_cv/baseline",
    "frozen_with_neighbours": "frozen_ridge_cv/neighbours",
    "last_stage": "last_block/probe",
    "last_stage_head": "last_block/head",
    "aligned_with_neighbours": "last_block/neighbours",
    "lora_r8": "lora/probe",
    "lora_r8_head": "lora/head",
    "lora_r32": "lora:lora_r32/probe",
    "lora_r32_head": "lora:lora_r32/head",
    "full_finetune": "full/probe",
    "random_sets": "random_sets/probe",
    "shuffled": "shuffled/probe",
    "shuffled_head": "shuffled/head",
}
"""Rows of this table, by the key and read-out that `evaluate` gives them."""
PAIRS = {
    "aligned_minus_frozen": ("last_stage", "frozen_ridge"),
    "aligned_minus_frozen_with_neighbours": ("aligned_with_neighbours", "frozen_with_neighbours"),
    "aligned_minus_frozen_head": ("last_stage_head", "frozen_head"),
    "lora_r8_minus_frozen": ("lora_r8", "frozen_ridge"),
    "lora_r32_minus_frozen": ("lora_r32", "frozen_ridge"),
    "aligned_minus_random_sets": ("last_stage", "random_sets"),
    "aligned_minus_shuffled": ("last_stage", "shuffled"),
    "aligned_minus_depth_only": ("last_stage", "depth_only"),
    "aligned_minus_29_features": ("last_stage", "floor_29_features"),
    "lora_r8_minus_last_stage": ("lora_r8", "last_stage"),
}
