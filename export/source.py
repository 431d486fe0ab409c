"""Reading a training run: the only module of export that knows the run folder and stamp_deploy.training."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from stamp_deploy.errors import UsageError
from stamp_deploy.hashing import sha256_file
from stamp_deploy.spread import spread

from .trust_reference import ReferenceTiles, reference_tiles
from .validation_facts import read_validation


@dataclass
class Source:
    """What an export starts from.

    Attributes
    ----------
    model : nn.Module
        float32 [N, 3, T, T], normalised -> (embedding [N, D], pathways [N, P]), with the adapter apart.
    merged : nn.Module
        The same function with the adapter folded into the weights.
    document : dict
        bundle.json as far as the run knows it (see docs/bundle.md).
    heads : list of (nn.Module, dict)
        Slide-level heads, embeddings [N, D] -> (logits [C], attention [N]), with their bundle.json entries.
    """

    model: nn.Module
    merged: nn.Module
    document: dict[str, Any]
    heads: list[tuple[nn.Module, dict[str, Any]]] = field(default_factory=list)
    reference: ReferenceTiles | None = None
    """Training tiles that slides are compared with; None where there are none."""


def read_run(run: Path, name: str, heads: Path | None = None, evaluation: Path | None = None) -> Source:
    """Load and merge a run, with the slide-level heads of `heads` (by default those in the run's folder).

    What its scores are worth is read from `evaluation` (by default the run's own, where it has one).

    Raises
    ------
    UsageError
        The folder is not a finished training run, or the evaluation is of another.
    """
    from stamp_deploy.training.model import load_run, merge_lora

    facts = run_facts(run)
    model, _ = load_run(run)
    merged = merge_lora(model)  # a copy: large models are in memory twice, not more
    document = document_of(run, facts, name)
    document["validation"] = read_validation(run, tuple(document["pathways"]), evaluation)
    found = read_heads(heads or run, int(facts["embedding_dim"]))
    known = reference_tiles(run, document["tile_px"], document["mpp"])
    return Source(model.float().eval(), merged, document, found, known)


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
    adapter = {"kind": str(facts.get("adapt") or "lora"), **(facts.get("lora") or {})}
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
    """At most `count` tiles uint8 [N, T, T, 3] of the cohort that the run was trained on, evenly spread over samples.

    Samples that were held out for validation come alone where they hold `count` tiles. Tiles that are larger than the
    model's are cut to their middle, as in training.

    Raises
    ------
    UsageError
        The run names no cohort, or it is no longer there.
    """
    from stamp_deploy.training.cohort import load_cohort

    remedy = "name tissue tiles with --tiles"
    config = run / "config.toml"
    stated = tomllib.loads(config.read_text(encoding="utf-8")).get("cohort") if config.is_file() else None
    if not stated:
        raise UsageError("this run names no cohort to draw parity tiles from", path=run, remedy=remedy)
    if not Path(stated, "cohort.json").is_file():
        raise UsageError("the cohort that this run was trained on is no longer there", path=run, remedy=remedy)
    cohort = load_cohort(stated)
    if cohort.tile_px < tile_px or abs(cohort.mpp - mpp) > 0.02 * mpp:
        raise UsageError(
            f"the run's cohort holds tiles of {cohort.tile_px} px at {cohort.mpp:g} um/px, and {tile_px} px at "
            f"{mpp:g} are needed",
            path=run,
            remedy=remedy,
        )
    held_out = set((run_facts(run).get("cohort") or {}).get("validation") or ())
    samples = [sample for sample in cohort.samples if sample.id in held_out]
    if sum(sample.n_spots for sample in samples) < count:
        samples = list(cohort.samples)
    keep = spread(sum(sample.n_spots for sample in samples), count)
    found, first, edge = [], 0, (cohort.tile_px - tile_px) // 2
    for sample in samples:
        rows = keep[(keep >= first) & (keep < first + sample.n_spots)] - first
        first += sample.n_spots
        if len(rows):
            found.append(sample.tiles()[rows, edge : edge + tile_px, edge : edge + tile_px])
    return np.ascontiguousarray(np.concatenate(found))


def read_heads(folder: Path, embedding_dim: int) -> list[tuple[nn.Module, dict[str, Any]]]:
    """The slide-level heads of a run, with their entries as bundle.json wants them.

    Raises
    ------
    UsageError
        A head was trained on embeddings of another length.
    """
    from stamp_deploy.training.heads.train import load_heads

    found = []
    for head, facts in load_heads(folder):
        dim = head.get_buffer("mean").numel()  # what standardises the embeddings
        if dim != embedding_dim:
            raise UsageError(
                f"the head {facts['name']} was trained on embeddings of {dim} values, and this run's have "
                f"{embedding_dim}",
                path=folder,
                remedy="train the head on this run's embeddings",
            )
        entry = {key: facts[key] for key in ("name", "kind", "classes", "thresholds", "temperature", "abstain")}
        entry |= {"file": f"heads/{facts['name']}.onnx", "details": facts.get("details") or {}}
        found.append((head, entry))
    return found
