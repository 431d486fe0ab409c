"""Small cohorts and runs for the tests: colours carry the programs, so that a little model can find them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 32
GENES = 12
PROGRAMS = ("RED", "GREEN", "BLUE", "NOTHING")


def program_gmt(path: Path) -> Path:
    """Four gene sets of 12 genes each."""
    lines = [f"{p}\ttest\t" + "\t".join(f"{p}{i}" for i in range(GENES)) for p in PROGRAMS]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def section(seed: int, spots: int = 60) -> tuple[Any, NDArray[np.uint8]]:
    """AnnData and tiles [N, 32, 32, 3]: a program's level is both its genes' rate and its colour."""
    import anndata
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(seed)
    level = rng.uniform(0, 1, (spots, 4))
    names = [f"{p}{i}" for p in PROGRAMS for i in range(GENES)] + [f"OTHER{i}" for i in range(200)]
    rate = np.concatenate([np.repeat(level * 12, GENES, axis=1), np.full((spots, 200), 2.0)], axis=1)
    counts = rng.poisson(rate)
    tiles = 60 + 150 * level[:, None, None, :3] + rng.normal(0, 12, (spots, TILE, TILE, 3))
    data = anndata.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(spots)]),
        var=pd.DataFrame(index=names),
        obsm={"spatial": np.stack([np.arange(spots) % 8, np.arange(spots) // 8], 1) * 100.0 + 50},
    )
    return data, np.clip(tiles, 0, 255).astype(np.uint8)


def make_cohort(folder: Path, patients: dict[str, str], seed: int = 0, spots: int = 60) -> Path:
    """A cohort folder: sample id -> patient."""
    from stamp_deploy.training.cohort import SampleFacts
    from stamp_deploy.training.cohort.write import write_cohort_json, write_sample

    rows = []
    for i, (name, patient) in enumerate(patients.items()):
        data, tiles = section(seed + i, spots)
        facts = SampleFacts(name, patient, "synthetic", "none", 1.0, "stated", qc={"image_sha256": f"{seed}-{name}"})
        rows.append(write_sample(folder, data, tiles, facts))
    write_cohort_json(folder, rows, tile_px=TILE, mpp=1.0)
    return folder


def make_tinted_cohort(folder: Path, spots: int = 60) -> Path:
    """Sections of two platforms: one has a tint over its tiles, and catches less of its genes."""
    from stamp_deploy.training.cohort import SampleFacts
    from stamp_deploy.training.cohort.write import write_cohort_json, write_sample

    rows = []
    for i, (name, platform) in enumerate({"a": "x", "b": "x", "c": "y", "d": "y", "h1": "x", "h2": "y"}.items()):
        data, tiles = section(i, spots)
        if platform == "y":
            tiles = np.clip(tiles.astype(np.int16) + np.array([60, -45, 30]), 0, 255).astype(np.uint8)
            data.X[:, 48:] *= 2  # more of what belongs to no program: its ranks push the programs' down
        rows.append(write_sample(folder, data, tiles, SampleFacts(name, f"p{i}", platform, "none", 1.0, "stated")))
    write_cohort_json(folder, rows, tile_px=TILE, mpp=1.0)
    return folder


def make_run(
    folder: Path, cohort: Path, gmt: Path, held_out: tuple[str, ...], *, weights: Path | None = None, **settings: Any
) -> Path:
    """A run folder: a tiny ViT with random weights, its head the ridge solution on its own embedding."""
    import torch

    from stamp_deploy.training.cohort import load_cohort
    from stamp_deploy.training.config import TrainConfig
    from stamp_deploy.training.evaluate.runs import Run, score_sections, training_samples
    from stamp_deploy.training.gene_sets import read_gmt
    from stamp_deploy.training.metrics import section_z
    from stamp_deploy.training.model import LoraSettings, RunInfo, build_model, save_run
    from stamp_deploy.training.ridge import fit_ridge_cv

    sets, opened = read_gmt(gmt), load_cohort(cohort)
    adapt = settings.get("adapt", "lora")
    side = opened.tile_px
    kwargs = {"img_size": side, "patch_size": side // 4, "embed_dim": 48, "depth": 2, "num_heads": 2}
    info = RunInfo(
        pfm_id="timm/vit_tiny_patch16_224",
        timm_name="vit_tiny_patch16_224",
        timm_kwargs=kwargs,
        embed="cls+mean",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        tile_px=opened.tile_px,
        mpp=opened.mpp,
        pathway_names=sets.names,
        gene_set_sha256=sets.sha256,
        embedding_dim=96,
        adapt=adapt,
        lora=LoraSettings(r=4) if adapt == "lora" else None,
    )
    torch.manual_seed(0)
    model = build_model(info).eval()
    config = TrainConfig.from_dict({"cohort": str(cohort), "gmt": str(gmt), "held_out": held_out, **settings})
    samples = training_samples(opened, config)
    run = Run(folder, model, info, config)
    x = [section_z(run.embedding(s)) for s in samples]
    raw = np.concatenate([run.embedding(s) for s in samples])
    truth = [section_z(s.truth) for s in score_sections(samples, sets, "ucell")]
    groups = [s.id for s, part in zip(samples, x, strict=True) for _ in part]
    ridge = fit_ridge_cv(raw, np.concatenate(truth), groups)
    with torch.no_grad():
        model.pathway.weight.copy_(torch.from_numpy(ridge.weights.T.astype(np.float32)))
        model.pathway.bias.copy_(torch.from_numpy(ridge.intercept.astype(np.float32)))
    folder.mkdir(parents=True)
    save_run(folder, model, info)
    (folder / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert asdict(info)["tile_px"] == opened.tile_px
    return folder
