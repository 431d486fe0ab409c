"""The reference of what a model knows: a JSON file of the bundle, read strictly.

`stamp_deploy.trust` judges slides by it, `stamp_deploy.export.trust_reference` fits it. docs/trust.md describes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..units import MAX_MPP, MIN_MPP
from .rules import REMEDY, fail, known_keys, number, whole
from .strict_json import parse_json

SCHEMA = "stamp-deploy/trust/1"
TRUST_FILE = "trust.json"
GROUPS = ("patient", "section", "part")
"""What was left out at a time: a patient; a section of the only patient; a part of the only section."""
NO_REFERENCE = "has no reference of what its model knows"
PERCENTILES = 101
COMPONENTS = 64
_MOST = 1e6
_KEYS = {"schema", "mpp", "tile_px", "left_out_by", "groups", "tiles", "statistics", "limits", "embedding"}


@dataclass(frozen=True, eq=False)
class EmbeddingReference:
    """Where the model's own embeddings of the reference tiles lie.

    Attributes
    ----------
    centre : float64 [D]
    whiten : float64 [D, K]
        |(embedding - centre) @ whiten| is the Mahalanobis distance on the K leading components.
    median : float
        Largest median distance of a group that was left out.
    tiles : int
    """

    centre: NDArray[np.float64]
    whiten: NDArray[np.float64]
    median: float
    tiles: int


@dataclass(frozen=True, eq=False)
class TrustReference:
    """What held-out training tiles look like.

    Attributes
    ----------
    mpp, tile_px
        Of the tiles.
    left_out_by : str
        One of `GROUPS`.
    groups, tiles : int
        How many groups and tiles.
    centre, spread : float64 [S]
        Median and spread of each statistic.
    whiten : float64 [S, S]
        |(x - centre) @ whiten| is the Mahalanobis distance.
    distances : float64 [101]
        Percentiles of the distances of tiles whose group was left out.
    median : float
        Largest median distance of a group that was left out.
    low, high : float64 [M]
        Range of each measure on tiles whose group was left out: their 0.5 and 99.5 percentiles.
    embedding : EmbeddingReference or None
    """

    mpp: float
    tile_px: int
    left_out_by: str
    groups: int
    tiles: int
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    whiten: NDArray[np.float64]
    distances: NDArray[np.float64]
    median: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    embedding: EmbeddingReference | None = None

    def to_json(self) -> bytes:
        """The file."""
        value: dict[str, Any] = {
            "schema": SCHEMA,
            "mpp": self.mpp,
            "tile_px": self.tile_px,
            "left_out_by": self.left_out_by,
            "groups": self.groups,
            "tiles": self.tiles,
            "statistics": {
                "centre": _rounded(self.centre),
                "spread": _rounded(self.spread),
                "whiten": _rounded(self.whiten),
                "distances": _rounded(self.distances),
                "median": float(self.median),
            },
            "limits": {"low": _rounded(self.low), "high": _rounded(self.high)},
            "embedding": None,
        }
        if self.embedding is not None:
            value["embedding"] = {
                "centre": _rounded(self.embedding.centre),
                "whiten": _rounded(self.embedding.whiten),
                "median": float(self.embedding.median),
                "tiles": self.embedding.tiles,
            }
        return json.dumps(value, allow_nan=False).encode()


def read_reference(data: bytes, *, mpp: float, tile_px: int, embedding_dim: int) -> TrustReference:
    """A reference out of the bytes that were hashed; it must fit the bundle.

    Raises
    ------
    BundleError
        Naming the first rule that is broken.
    """
    value = parse_json(data, TRUST_FILE)
    if value.get("schema") != SCHEMA:
        fail(f"{TRUST_FILE} is of the schema {str(value.get('schema'))[:40]!r}, and {SCHEMA} is known")
    _exactly(value, _KEYS, TRUST_FILE)
    if number(value["mpp"], "mpp of the reference", MIN_MPP, MAX_MPP) != mpp or value["tile_px"] != tile_px:
        fail("the reference is of tiles of another size or resolution than the model's")
    if value["left_out_by"] not in GROUPS:
        fail(f"the reference leaves out {str(value['left_out_by'])[:40]!r}, which is none of {', '.join(GROUPS)}")
    part, limits = value["statistics"], value["limits"]
    _exactly(part, {"centre", "spread", "whiten", "distances", "median"}, "the reference's statistics")
    _exactly(limits, {"low", "high"}, "the reference's limits")
    centre = _array(part["centre"], "centre", 1)
    count = len(centre)
    spread = _array(part["spread"], "spread", 1, (count,))
    low = _array(limits["low"], "low limits", 1)
    high = _array(limits["high"], "high limits", 1, (len(low),))
    distances = _array(part["distances"], "distances", 1, (PERCENTILES,))
    if (spread <= 0).any():
        fail("the reference has a spread of 0")
    if (low > high).any():
        fail("the reference's limits are upside down")
    if (np.diff(distances) < 0).any() or distances[0] < 0:
        fail("the percentiles of the reference's distances do not ascend from 0")
    return TrustReference(
        mpp=float(value["mpp"]),
        tile_px=tile_px,
        left_out_by=value["left_out_by"],
        groups=whole(value["groups"], "groups of the reference", 1, 1_000_000),
        tiles=whole(value["tiles"], "tiles of the reference", 1, 1_000_000_000),
        centre=centre,
        spread=spread,
        whiten=_array(part["whiten"], "whitening", 2, (count, count)),
        distances=distances,
        median=number(part["median"], "median distance of the reference", 1e-6, _MOST),
        low=low,
        high=high,
        embedding=_embedding(value["embedding"], embedding_dim),
    )


def _embedding(value: Any, dim: int) -> EmbeddingReference | None:
    if value is None:
        return None
    _exactly(value, {"centre", "whiten", "median", "tiles"}, "the reference's embeddings")
    whiten = _array(value["whiten"], "whitening of embeddings", 2)
    if whiten.shape[0] != dim or not 1 <= whiten.shape[1] <= COMPONENTS:
        fail(f"the whitening of embeddings is {whiten.shape} and must be {dim} by 1 to {COMPONENTS}")
    return EmbeddingReference(
        _array(value["centre"], "centre of embeddings", 1, (dim,)),
        whiten,
        number(value["median"], "median distance of embeddings", 1e-6, _MOST),
        whole(value["tiles"], "tiles of the embeddings' reference", 1, 1_000_000_000),
    )


def _array(value: Any, what: str, axes: int, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """Finite numbers up to a million, in lists of equal length."""
    rows = value if axes == 2 else [value]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        _odd(what)
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) for row in rows for item in row):
        _odd(what)
    if len({len(row) for row in rows}) != 1:
        _odd(what)
    found = np.array(value, np.float64)
    if shape is not None and found.shape != shape:
        fail(f"the {what} of the reference is {found.shape} and should be {shape}")
    if np.abs(found).max() > _MOST:
        _odd(what)
    return found


def _odd(what: str) -> NoReturn:
    raise BundleError(f"the {what} of the reference holds other than numbers up to {_MOST:g}", remedy=REMEDY)


def _exactly(value: Any, keys: set[str], what: str) -> None:
    if not isinstance(value, dict):
        fail(f"{what} is not an object")
    known_keys(value, keys, what)
    missing = sorted(keys - set(value))
    if missing:
        fail(f"{what} lacks {missing[0]!r}")


def _rounded(values: NDArray[np.float64]) -> Any:
    """Seven digits: more than float32 has."""
    return [_rounded(row) for row in values] if values.ndim > 1 else [float(f"{value:.7g}") for value in values]
