"""Recipes on tiny cohorts: settings, and a cohort whose tiles show the neighbourhood around the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from support.cohort_factory import GENES, PROGRAMS, TILE

TINY = json.dumps({"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3})
SMALL_VIEW = json.dumps({"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3})
CHANCE = 5 / 60
"""Recall@5 within a section of 60 spots."""


def recipe_settings(place: Path, recipe: str, **changes: Any) -> Any:
    """A recipe on a tiny cohort: a tiny model, few genes, and more epochs at a higher rate."""
    from stamp_deploy.training.config import TrainConfig
    from stamp_deploy.training.recipes import read_recipe

    tiny = {
        "cohort": str(place / "cohort"), "gmt": str(place / "programs.gmt"), "held_out": ["h"], "val_fraction": 0.0,
        "pfm": "demo-vit", "timm_kwargs": TINY, "tile_px": 32, "mpp": 1.0, "n_genes": 48, "adapt": "full",
        "genes_smooth_um": 0.0, "epochs": 30, "lr": 2e-3, "lr_heads": 2e-3, "batch_spots": 60, "threads": 1,
        "hed_jitter": 0.0, "precision": "fp32", "progress": False,
    }  # fmt: skip
    return TrainConfig.from_dict({**read_recipe(recipe), **tiny, **changes})


def niche_section(seed: int, spots: int = 60) -> tuple[Any, NDArray[np.uint8]]:
    """AnnData and tiles whose middle 16 px show the spot's own programs and whose rim shows its neighbours' mean."""
    import anndata
    import pandas as pd
    from scipy import sparse

    from stamp_deploy.training.neighbours import neighbours_mean

    rng = np.random.default_rng(seed)
    xy = np.stack([np.arange(spots) % 8, np.arange(spots) // 8], 1) * 100.0 + 50
    noise = rng.uniform(0, 1, (spots, 4))
    level = np.clip(0.5 + 1.6 * (0.5 * noise + 0.5 * neighbours_mean(noise, xy) - 0.5), 0, 1)
    around = neighbours_mean(level, xy)
    names = [f"{p}{i}" for p in PROGRAMS for i in range(GENES)] + [f"OTHER{i}" for i in range(200)]
    rate = np.concatenate([np.repeat(level * 12, GENES, axis=1), np.full((spots, 200), 20.0)], axis=1)
    colours = np.broadcast_to(around[:, None, None, :3], (spots, TILE, TILE, 3)).copy()
    colours[:, 8:24, 8:24] = level[:, None, None, :3]
    tiles = 60 + 150 * colours + rng.normal(0, 6, (spots, TILE, TILE, 3))
    data = anndata.AnnData(
        sparse.csr_matrix(rng.poisson(rate).astype(np.float32)),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(spots)]),
        var=pd.DataFrame(index=names),
        obsm={"spatial": xy},
    )
    return data, np.clip(tiles, 0, 255).astype(np.uint8)


def make_niche_cohort(folder: Path, names: tuple[str, ...] = ("a", "b", "h"), spots: int = 60) -> Path:
    """A cohort of such sections, each of a patient of its own."""
    from stamp_deploy.training.cohort import SampleFacts
    from stamp_deploy.training.cohort.write import write_cohort_json, write_sample

    rows = []
    for i, name in enumerate(names):
        data, tiles = niche_section(i, spots)
        facts = SampleFacts(name, f"patient-{name}", "synthetic", "none", 1.0, "stated")
        rows.append(write_sample(folder, data, tiles, facts))
    write_cohort_json(folder, rows, tile_px=TILE, mpp=1.0)
    return folder


def recall_at_5(run: Path, kind: str) -> tuple[float, float]:
    """Of pictures among molecules, and the reverse, on the held-out section."""
    from stamp_deploy.training.evaluate import EvaluateOptions, evaluate
    from stamp_deploy.training.evaluate.report import footnotes

    made = evaluate(EvaluateOptions(run, tier1=False))
    entry = next(iter(made.document["retrieval"].values()))
    assert any(line.startswith("retrieval, ") for line in footnotes(made))
    ways = entry[kind]
    return ways["picture_to_molecules"]["recall_at_5"], ways["molecules_to_picture"]["recall_at_5"]
