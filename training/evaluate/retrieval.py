"""Retrieval between pictures and molecules: is a spot's own profile found among those of its section, and the reverse?

Recall@k is the share of spots whose own counterpart is among the k most alike (cosine) of the held-out section. It is
computed for runs that match the two sides: by their ingredients, or by the contrast of pathway profiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..cohort import Sample
from ..ingredients.gene_transformer import NEIGHBOURS
from ..neighbours import nearest_rows, neighbours_mean
from ..scoring import robust_z
from ..sections import learned_genes, log_expression
from .runs import Run, Section

RANKS = (1, 5, 10)


def recall_at(a: NDArray[np.floating], b: NDArray[np.floating], ranks: Sequence[int] = RANKS) -> dict[int, float]:
    """Share of rows of `a` [N, E] whose own row of `b` [N, E] is among the k most alike, for each k.

    Of equals, half count as more alike: what cannot be told apart is not found.
    """
    x, y = (np.asarray(v, np.float64) for v in (a, b))
    x, y = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (x, y))
    alike = x @ y.T
    own = np.diagonal(alike)[:, None]
    before = (alike > own + 1e-12).sum(axis=1) + ((np.abs(alike - own) <= 1e-12).sum(axis=1) - 1) / 2
    return {k: float((before < k).mean()) for k in ranks}


def retrieval(run: Run, tests: Sequence[Section]) -> dict[str, Any] | None:
    """Recall@k both ways of each matching of the run, mean over sections, beside chance; None where there is none."""
    sides = [matched_sides(run, section) for section in tests]
    names = list(sides[0]) if sides else []
    if not names:
        return None
    out: dict[str, Any] = {}
    for name in names:
        ways: dict[str, Any] = {}
        pairs = [side[name] for side in sides]
        both = {
            "picture_to_molecules": [recall_at(picture, molecules) for picture, molecules in pairs],
            "molecules_to_picture": [recall_at(molecules, picture) for picture, molecules in pairs],
        }
        for way, found in both.items():
            ways[way] = {f"recall_at_{k}": round(float(np.mean([f[k] for f in found])), 4) for k in RANKS}
        out[name] = ways
    sizes = [len(s.truth) for s in tests]
    out["chance"] = {f"recall_at_{k}": round(float(np.mean([min(k / n, 1.0) for n in sizes])), 4) for k in RANKS}
    return out


@torch.inference_mode()
def matched_sides(run: Run, section: Section) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Matching -> picture side and molecular side of a section's spots, each [N, E]."""
    device = run.model.pathway.weight.device
    embedding = torch.from_numpy(run.embedding(section.sample)).to(device)
    out: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    if run.model.projection is not None and run.model.target_projection is not None and _same_pathways(run, section):
        profile = torch.from_numpy(robust_z(section.truth) * section.mask).to(device)
        pair = run.model.projection(embedding), run.model.target_projection(profile)
        out["pathways"] = (pair[0].cpu().numpy(), pair[1].cpu().numpy())
    if run.matching:
        genes = gene_values(section.sample, run.info.genes)
        genes = learned_genes(genes, section.xy_um, 0.0)
        around = torch.from_numpy(neighbours_mean(genes, section.xy_um)).to(device)
        near = torch.from_numpy(nearest_rows(section.xy_um, NEIGHBOURS)).to(device)
        for name, part in run.matching.items():
            molecular = part.molecular_side(torch.from_numpy(genes).to(device), around, near)
            out[name] = (part.picture_side(embedding).cpu().numpy(), molecular.cpu().numpy())
    return out


def _same_pathways(run: Run, section: Section) -> bool:
    return run.info.score_method != "log1p-cp10k" and section.truth.shape[1] == len(run.info.pathway_names)


def gene_values(sample: Sample, genes: Sequence[str]) -> NDArray[np.float32]:
    """log1p CP10k float32 [N, G]; genes that the sample does not measure are 0 in every spot."""
    return log_expression(sample.expression(), genes)
