"""Reading a training run: the only module of export that knows the run folder and stamp_deploy.training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.bundle import sha256_file
from stamp_deploy.errors import UsageError

from .export import Source, plain_copy
from .golden import load_tiles


def read_run(run: Path, name: str) -> Source:
    """Load and merge a run.

    Raises
    ------
    UsageError
        The folder is not a finished training run.
    """
    from stamp_deploy.training.model import load_run, merge_lora

    facts = run_facts(run)
    model, _ = load_run(run)
    merged = merge_lora(plain_copy(model))
    return Source(plain_copy(model), merged.float().eval(), document_of(run, facts, name))


def run_facts(run: Path) -> dict[str, Any]:
    """run.json."""
    path = run / "run.json"
    if not path.is_file():
        raise UsageError("this is not a finished training run: it holds no run.json", path=run)
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def document_of(run: Path, facts: dict[str, Any], name: str) -> dict[str, Any]:
    """bundle.json as far as the run knows it."""
    names = [str(item) for item in facts["pathway_names"]]
    gene_sets = facts.get("gene_set_sha256") or hashlib.sha256("\n".join(names).encode()).hexdigest()
    mpp = float(facts["mpp"])
    adapter = {"kind": "lora", **(facts.get("lora") or {})}
    for file in ("adapter.safetensors", "heads.safetensors"):
        if (run / file).is_file():
            adapter[f"{file}_sha256"] = sha256_file(run / file)
    return {
        "name": name,
        "pfm": {"id": str(facts["pfm_id"]), "licence": str(facts.get("licence") or "not stated")},
        "tile_px": int(facts["tile_px"]),
        "mpp": mpp,
        "mean": [float(value) for value in facts["mean"]],
        "std": [float(value) for value in facts["std"]],
        "pathways": names,
        "gene_set_sha256": gene_sets,
        "tissue": facts.get("tissue") or {"method": "saturation-otsu", "min_fraction": 0.25},
        "input_range": {"mpp": [mpp / 1.5, mpp * 1.5], "scores": facts.get("score_range")},
        "adapter": adapter,
        "training_data": facts.get("cohort") or {},
    }


def run_tiles(run: Path, tile_px: int, mpp: float, count: int) -> NDArray[np.uint8]:
    """Tiles of the run's own cohort, held-out samples first where the run says which they are."""
    raise UsageError(
        "this run names no cohort to draw parity tiles from",
        path=run,
        remedy="name tissue tiles with --tiles",
    )


__all__ = ["document_of", "load_tiles", "read_run", "run_facts", "run_tiles"]
