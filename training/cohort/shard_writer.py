"""Writing the tiles of a sample as shards (shards.py says what they are), and when that is the form to store."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.atomic import write_text_atomic

from .shards import INDEX, SCHEMA, SUFFIXES, TileFormat

Store = Literal["auto", "arrays", "shards"]
SHARDS_FROM_GB = 50
"""Arrays up to this size stay in the memory of a training machine; beyond it the disk is what training waits for."""
SHARD_TILES, SHARDS, FEWEST_TILES = 240, 8, 32
"""Tiles of a shard: some 13 MB. A section has `SHARDS` of them or more, of `FEWEST_TILES` each, so that training can
begin with a part of every section."""
JPEG_QUALITY = 95
ORDER_SEED = 17


def wants_shards(store: Store, raw_bytes: int, samples: int) -> bool:
    """Whether a sample is stored as shards.

    Parameters
    ----------
    store : str
        "auto" asks whether a cohort of samples like this one would take more than `SHARDS_FROM_GB` as arrays. It does
        not depend on the other samples, which may still be in the making.
    raw_bytes : int
        Of the sample's tiles.
    samples : int
        Of the cohort.
    """
    return store == "shards" or (store == "auto" and raw_bytes * samples > SHARDS_FROM_GB * 1e9)


def shard_count(tiles: int) -> int:
    """How many shards so many tiles take."""
    return max(1, -(-tiles // SHARD_TILES), min(SHARDS, tiles // FEWEST_TILES))


def write_shards(place: Path, tiles: NDArray[np.uint8], tile_format: TileFormat = "webp") -> dict[str, Any]:
    """Write shards and their index into a sample's folder; the index comes last.

    Parameters
    ----------
    place : Path
    tiles : uint8 [N, T, T, 3]
        Row i belongs to spot i.
    tile_format : str
        "webp": lossless. "jpeg": quality 95, about half as large; it loses.

    Returns
    -------
    dict
        Form, format, number of shards and bytes, for cohort.json.
    """
    from webdataset.writer import TarWriter

    encode = _encoder(tile_format)
    order = np.random.default_rng([ORDER_SEED, len(tiles)]).permutation(len(tiles))
    count = shard_count(len(tiles))
    rows, total = [], 0
    for number, part in enumerate(np.array_split(order, count)):
        buffer = io.BytesIO()
        with TarWriter(buffer, encoder=False, mtime=0, user="", group="") as writer:
            for row in part.tolist():
                writer.write({"__key__": f"{row:08d}", SUFFIXES[tile_format]: encode(tiles[row])})
        data = buffer.getvalue()
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = archive.getmembers()
        name = f"tiles-{number:05d}.tar"
        (place / name).write_bytes(data)
        total += len(data)
        rows.append({
            "file": name, "sha256": hashlib.sha256(data).hexdigest(), "rows": part.tolist(),
            "offsets": [m.offset_data for m in members], "sizes": [m.size for m in members],
        })  # fmt: skip
    document = {"schema": SCHEMA, "format": tile_format, "tile_px": int(tiles.shape[1]), "shards": rows}
    write_text_atomic(place / INDEX, json.dumps(document) + "\n")
    return {"form": "shards", "format": tile_format, "shards": count, "bytes": total}


def _encoder(tile_format: TileFormat) -> Callable[[NDArray[np.uint8]], bytes]:
    import imagecodecs

    if tile_format == "jpeg":
        return lambda tile: bytes(imagecodecs.jpeg8_encode(tile, level=JPEG_QUALITY, subsampling="444"))
    # method 1 and level 0: 3 % larger than the best that WebP can, and five times as fast
    return lambda tile: bytes(imagecodecs.webp_encode(np.ascontiguousarray(tile), level=0, lossless=True, method=1))
