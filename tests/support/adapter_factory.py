"""Two adapters on one base, made of factory bundles in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stamp_deploy.bundle import Bundle, load_bundle, write_adapters_json
from stamp_deploy.export.adapters import BASE_FILE, Shared, take_over
from support.bundle_factory import DIM, POOL, make_bundle

NAMES = ("lung", "breast")


def make_adapters(folder: Path) -> dict[str, Bundle]:
    """A bundle in `folder`: the linear map of the encoder differs by a matrix of rank 2 from adapter to adapter."""
    rng = np.random.default_rng(5)
    base = (rng.normal(size=(3 * POOL * POOL, DIM)) / 4).astype(np.float32)
    score = (rng.normal(size=(DIM, 4)) / 4).astype(np.float32)
    folder.mkdir(parents=True)
    shared, entries = Shared({"project": base}), {}
    for seed, name in enumerate(NAMES):
        change = (rng.normal(size=(len(base), 2)) @ rng.normal(size=(2, DIM)) / 4).astype(np.float32)
        weights = {"project": base + change, "score": score}
        alone = make_bundle(folder.parent / f"{folder.name}-{name}", seed=seed, weights=weights, golden_tiles=24)
        entries[name] = take_over(name, load_bundle(alone), shared, folder)
    shared.write(folder / BASE_FILE)
    return write_adapters_json(folder, "factory", entries)
