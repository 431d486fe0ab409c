"""A stand-in for the folders of HEST-Bench: three samples of one task, and embeddings of them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

GENES = [f"G{i}" for i in range(6)]


def write_task(root: Path, name: str = "IDC", spots: int = 40, samples: int = 3) -> tuple[Path, Path]:
    """A task of three samples, each tested once, and embeddings that carry four of the six genes."""
    import anndata

    rng = np.random.default_rng(0)
    task, stored = root / "bench" / name, root / "embeddings" / name
    for folder in (task / "splits", task / "patches", task / "adata", stored):
        folder.mkdir(parents=True)
    (task / "var_50genes.json").write_text(json.dumps({"genes": GENES}))
    names = [f"S{i}" for i in range(samples)]
    mix = rng.normal(size=(6, 10))
    mix[4:] = 0
    for number, sample in enumerate(names):
        level = rng.uniform(0, 3, (spots, 6))
        counts = rng.poisson(np.exp(level)).astype(np.float32)
        codes = [f"{sample}-{i}" for i in range(spots)]
        other = rng.permutation(spots)  # counts come in an order of their own, with genes that are not asked for
        table = anndata.AnnData(np.hstack([np.ones((spots, 1), np.float32), counts])[other])
        table.obs_names, table.var_names = [codes[i] for i in other], ["X", *GENES]
        table.write_h5ad(task / "adata" / f"{sample}.h5ad")
        with h5py.File(stored / f"{sample}.h5", "w") as file:
            file["embeddings"] = (level @ mix + 0.1 * rng.normal(size=(spots, 10))).astype(np.float32)
            file["barcodes"] = np.array(codes, dtype="S")[:, None]
        with h5py.File(task / "patches" / f"{sample}.h5", "w") as file:
            file["img"] = np.full((spots, 224, 224, 3), 40 * number, np.uint8)
            file["barcode"] = np.array(codes, dtype="S")[:, None]
        for side, inside in (("train", [n for n in names if n != sample]), ("test", [sample])):
            lines = ["sample_id,patches_path,expr_path"] + [f"{n},patches/{n}.h5,adata/{n}.h5ad" for n in inside]
            (task / "splits" / f"{side}_{number}.csv").write_text("\n".join(lines) + "\n")
    return root / "bench", root / "embeddings"
