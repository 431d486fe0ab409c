"""Samples for `cohort build`: AnnData files of nine spots and a picture whose pixels tell where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from PIL import Image
from scipy import sparse

from stamp_deploy.training.cohort import Cohort
from stamp_deploy.training.cohort.build import build_cohort

SIDE = 640
GENES = [f"G{i}" for i in range(30)]


def picture() -> np.ndarray:
    """Red grows by 1 every 4 px to the right, green every 4 px downwards: a pixel tells where it is."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([x // 4, y // 4, np.full_like(x, 200)], axis=-1).astype(np.uint8)


def centres() -> np.ndarray:
    return np.array([[x, y] for y in (100.0, 300.0, 500.0) for x in (100.0, 300.0, 500.0)])


def sample(folder: Path, name: str = "S1", *, image: str = "image.png", **change: Any) -> str:
    """An AnnData file, an image, and the lines of the config that name them."""
    counts = np.random.default_rng(0).poisson(3, (9, 30)).astype(np.float32) + 1
    data = anndata.AnnData(
        sparse.csr_matrix(change.pop("counts", counts)),
        obs=pd.DataFrame(index=[f"b{i}" for i in range(9)]),
        var=pd.DataFrame(index=change.pop("genes", GENES)),
        obsm={"spatial": change.pop("centres", centres())},
    )
    data.write_h5ad(folder / f"{name}.h5ad")
    if not (folder / image).exists():
        Image.fromarray(picture()).save(folder / image)
    values = {"id": name, "patient_id": "P1", "format": "anndata", "counts": f"{name}.h5ad", "image": image, "mpp": 0.5}
    values = {k: v for k, v in {**values, **change}.items() if v is not None}
    return "[[samples]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())


def config(folder: Path, *samples: str, **values: Any) -> Path:
    top = {"tile_px": 32, "mpp": 1.0, "min_genes": 10, **values}
    path = folder / "cohort.toml"
    path.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in top.items()) + "\n".join(samples))
    return path


def build(path: Path, out: Path, *, pictures: bool = False) -> Cohort:
    """Build without a word, and by default without pictures, which take longest."""
    return build_cohort(path, out, pictures=pictures, log=lambda line: None)
