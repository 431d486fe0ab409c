"""Tiles of a sample as shards: tar files of compressed tiles, in WebDataset's form, with an index.

tiles.json                      which tile lies where, and the SHA-256 of every shard
tiles-00000.tar, ...            members ROW.webp or ROW.jpg, ROW a spot's row in expression.h5ad, in a drawn order

A shard that is read from its start to its end gives tiles from all over the section. Single
tiles are found by the index.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError

INDEX = "tiles.json"
SCHEMA = "stamp-deploy/shards/1"
TileFormat = Literal["webp", "jpeg"]
SUFFIXES: dict[str, str] = {"webp": "webp", "jpeg": "jpg"}
AGAIN = "copy it again from where it is whole, or build the cohort again"


@dataclass(frozen=True, eq=False)
class Shard:
    """One shard.

    Attributes
    ----------
    path : Path
    sha256 : str
    rows : int64 [n]
        The spots, in the shard's order.
    offsets, sizes : int64 [n]
        Where each tile's bytes lie in the file.
    """

    path: Path
    sha256: str
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


class ShardedTiles:
    """RGB tiles of a sample, uint8 [N, T, T, 3], decoded as they are asked for; indexed as an array is.

    Parameters
    ----------
    folder : Path
        Of the sample.
    expected : tuple
        The shape that cohort.json tells.

    Raises
    ------
    DataError
        The index cannot be read, or does not hold every spot once.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, folder: Path, expected: tuple[int, int, int, int]) -> None:
        source = folder / INDEX
        self.shape = expected
        try:
            document: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
            if document["schema"] != SCHEMA:
                raise DataError(f"is not of the schema {SCHEMA}", path=source, remedy="build the cohort again")
            self.format: str = document["format"]
            self._decode = _decoder(self.format)
            self.shards = tuple(_shard(folder, row) for row in document["shards"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"cannot be read: {error}", path=source, remedy="build the cohort again") from error
        rows = np.concatenate([s.rows for s in self.shards]) if self.shards else np.zeros(0, np.int64)
        if document.get("tile_px") != expected[1] or not np.array_equal(np.sort(rows), np.arange(expected[0])):
            raise DataError(
                f"does not hold {expected[0]} tiles of {expected[1]} px, each once",
                path=source,
                remedy="build the cohort again",
            )
        self._shard_of = np.empty(expected[0], np.int64)
        self._place = np.empty(expected[0], np.int64)
        for number, shard in enumerate(self.shards):
            self._shard_of[shard.rows], self._place[shard.rows] = number, np.arange(len(shard.rows))
        self._checked: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """As of an array; the first axis chooses what is decoded."""
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        rows = np.arange(len(self))[first]
        tiles = self.take(np.atleast_1d(rows))
        return tiles[0][rest] if np.ndim(rows) == 0 else tiles[(slice(None), *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.take(np.arange(len(self))), dtype)

    def shards_of(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """The number of the shard that holds each of some rows."""
        return np.asarray(self._shard_of[rows])

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Tiles uint8 [n, T, T, 3] of some rows, in that order, found by the index.

        Raises
        ------
        DataError
            A shard is missing or damaged. A shard is checked against its SHA-256 when it is first touched.
        """
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        where = self._shard_of[rows]
        for number in np.unique(where).tolist():
            shard = self.shards[number]
            with self._lock:
                if number not in self._checked:
                    self._verified(shard)
                    self._checked.add(number)
            try:
                with shard.path.open("rb") as file:
                    for slot in np.flatnonzero(where == number).tolist():
                        place = self._place[rows[slot]]
                        data = os.pread(file.fileno(), int(shard.sizes[place]), int(shard.offsets[place]))
                        self.decode(data, out[slot], shard)
            except OSError as error:
                raise DataError(f"cannot be read: {error}", path=shard.path, remedy=AGAIN) from error
        return out

    def read(self, number: int) -> dict[int, bytes]:
        """A whole shard, read once from start to end and checked: row -> the compressed tile.

        Raises
        ------
        DataError
            It is missing or damaged.
        """
        from webdataset.tariterators import group_by_keys, tar_file_expander

        shard = self.shards[number]
        data = self._verified(shard)
        suffix, source = SUFFIXES[self.format], {"url": shard.path.name, "stream": io.BytesIO(data)}
        try:
            return {int(s["__key__"]): s[suffix] for s in group_by_keys(tar_file_expander([source]))}
        except (KeyError, ValueError, OSError) as error:
            raise DataError(f"is no shard of tiles: {error!r}", path=shard.path, remedy=AGAIN) from error

    def decode(self, data: bytes, out: NDArray[np.uint8], shard: Shard) -> None:
        """Decode one tile into uint8 [T, T, 3].

        Raises
        ------
        DataError
            It cannot be decoded, or is of another size.
        """
        try:
            self._decode(data, out)
        except Exception as error:  # the codecs have errors of their own, with no common base but this
            raise DataError(f"a tile cannot be decoded: {error}", path=shard.path, remedy=AGAIN) from error

    def _verified(self, shard: Shard) -> bytes:
        try:
            data = shard.path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error}", path=shard.path, remedy=AGAIN) from error
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise DataError("is damaged: its SHA-256 is not the one in tiles.json", path=shard.path, remedy=AGAIN)
        return data


Tiles = NDArray[np.uint8] | ShardedTiles
"""Tiles [N, T, T, 3] of a sample: mapped from the disk, or of shards."""


def _shard(folder: Path, row: dict[str, Any]) -> Shard:
    rows, offsets, sizes = (np.array(row[k], np.int64) for k in ("rows", "offsets", "sizes"))
    if not len(rows) == len(offsets) == len(sizes):
        raise ValueError(f"rows, offsets and sizes of {row['file']} differ in number")
    return Shard(folder / Path(row["file"]).name, row["sha256"], rows, offsets, sizes)


def _decoder(tile_format: str) -> Callable[[bytes, NDArray[np.uint8]], object]:
    import imagecodecs

    decoders: dict[str, Callable[[bytes, NDArray[np.uint8]], object]] = {
        "webp": lambda data, out: imagecodecs.webp_decode(data, hasalpha=False, out=out),
        "jpeg": lambda data, out: imagecodecs.jpeg8_decode(data, out=out),
    }
    if tile_format not in decoders:
        raise ValueError(f"tiles of the format {tile_format!r}")
    return decoders[tile_format]
