"""The bundle's golden tiles: an engine is accepted on this machine when it reproduces what torch said of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .parity import Outputs, StageReport, compare

if TYPE_CHECKING:
    from ..bundle import Bundle
    from .base import Engine

GOLDEN_TILES = 64
"""Tiles kept in the bundle: 9.6 MB at 224 px, and ranks of 64 tiles are enough to see a broken engine."""
ARRAYS = ("tiles", "embedding", "pathways")


def write_golden(
    folder: Path, tiles: NDArray[np.uint8], embedding: NDArray[np.float32], pathways: NDArray[np.float32]
) -> None:
    """Write tiles.npy, embedding.npy and pathways.npy: no pickle, any numpy reads them."""
    folder.mkdir()
    keep = spread(len(tiles), GOLDEN_TILES)
    for name, values in (("tiles", tiles), ("embedding", embedding), ("pathways", pathways)):
        np.save(folder / f"{name}.npy", values[keep], allow_pickle=False)


def spread(total: int, count: int) -> NDArray[np.int64]:
    """`count` indices evenly spread over `total` (all of them where there are fewer)."""
    return np.unique(np.linspace(0, total - 1, min(total, count)).round().astype(np.int64))


def load_golden(bundle: Bundle, count: int | None = None) -> tuple[NDArray[np.uint8], Outputs]:
    """Golden tiles uint8 [G, T, T, 3] and their expected outputs; at most `count`, evenly spread.

    Raises
    ------
    BundleError
        The arrays do not fit the bundle or each other.
    """
    arrays = {}
    for name in ARRAYS:
        try:
            arrays[name] = np.load(bundle.golden / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise BundleError(
                f"the golden {name} cannot be read", path=bundle.path, remedy="export the bundle again"
            ) from error
    tiles, embedding, pathways = (arrays[name] for name in ARRAYS)
    total, side = len(tiles), bundle.tile_px
    if (
        tiles.dtype != np.uint8
        or tiles.shape != (total, side, side, 3)
        or embedding.shape != (total, bundle.embedding_dim)
        or pathways.shape != (total, len(bundle.pathways))
        or total < 2
    ):
        raise BundleError("the golden arrays do not fit the bundle", path=bundle.path, remedy="export the bundle again")
    keep = spread(total, count or total)
    reference = Outputs(embedding[keep].astype(np.float32), pathways[keep].astype(np.float32))
    return np.ascontiguousarray(tiles[keep]), reference


def run_tiles(engine: Engine, tiles: NDArray[np.uint8]) -> tuple[Outputs, float]:
    """What an engine says of tiles, and the seconds it took."""
    step = engine.max_batch
    start = time.perf_counter()
    found = list(engine.stream(tiles[i : i + step] for i in range(0, len(tiles), step)))
    seconds = time.perf_counter() - start
    return (
        Outputs(np.concatenate([o.embedding for o in found]), np.concatenate([o.pathways for o in found])),
        seconds,
    )


def check_engine(bundle: Bundle, engine: Engine, count: int | None = None) -> StageReport:
    """Compare an engine's embeddings and pathway scores with the golden ones, by its precision's tolerance."""
    tiles, reference = load_golden(bundle, count)
    return judge(bundle, engine, reference, run_tiles(engine, tiles)[0])


def judge(bundle: Bundle, engine: Engine, reference: Outputs, found: Outputs) -> StageReport:
    """`check_engine` on outputs that are already there."""
    info = engine.info
    return compare(
        reference,
        found,
        stage=f"golden -> {info.name} {info.precision}",
        names=("the golden outputs", f"{info.name} {info.version} {info.precision} on {info.device}"),
        precision=info.precision,
        pathways=bundle.pathways,
        details={"engine": info.name, "version": info.version, "device": info.device, **info.details},
    )
