"""Fitting the reference of what a model knows, on training tiles whose patient (or section) is left out in turn.

Thresholds from the tiles that the reference was fitted on fire on 37 to 57 % of another patient's clean tiles (measured
on her2st), so every distance and limit here is of tiles that their own fit has not seen. Covariances are shrunk (Ledoit
and Wolf 2004). Centres and spreads are medians, and the farthest twentieth is trimmed: training tiles hold glass.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.bundle.reference import PERCENTILES, EmbeddingReference, TrustReference
from stamp_deploy.spread import spread
from stamp_deploy.trust.distance import mahalanobis
from stamp_deploy.trust.flags import is_glass
from stamp_deploy.trust.statistics import MIN_TILE_PX, STATISTICS, measure_tiles

TILES_A_GROUP = 400
EMBEDDED_TILES = 256
"""Tiles that are embedded for the back-up at slide level: the encoder is what an export waits for."""
LEAST_TILES = 50
COMPONENTS = 32
TRIMMED = 0.05
TAILS = (0.5, 99.5)
FLOOR = np.array([0.02] * 6 + [0.1, 0.05, 0.02, 0.02])
"""Least spread of each statistic: a channel that hardly varies in training must not make everything foreign."""
_PARTS = 4

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReferenceTiles:
    """Tiles to fit on.

    Attributes
    ----------
    groups : tuple of uint8 [N, T, T, 3]
        One array per patient, section or part.
    left_out_by : str
        What the groups are.
    """

    groups: tuple[NDArray[np.uint8], ...]
    left_out_by: str


def reference_tiles(run: Path, tile_px: int, mpp: float) -> ReferenceTiles | None:
    """Tiles of the run's cohort, without the sections that it held out; None where the cohort is gone or too small."""
    from stamp_deploy.training.cohort import load_cohort
    from stamp_deploy.training.config import load_config
    from stamp_deploy.training.evaluate.runs import training_samples

    config = run / "config.toml"
    stated = tomllib.loads(config.read_text(encoding="utf-8")).get("cohort") if config.is_file() else None
    if not stated or not Path(stated, "cohort.json").is_file() or tile_px < MIN_TILE_PX:
        return None
    cohort = load_cohort(stated)
    if cohort.tile_px < tile_px or abs(cohort.mpp - mpp) > 0.02 * mpp:
        return None
    samples = training_samples(cohort, load_config(config))
    edge = (cohort.tile_px - tile_px) // 2
    cut = slice(edge, edge + tile_px)
    by_patient: dict[str, list[Any]] = {}
    for sample in samples:
        by_patient.setdefault(sample.patient, []).append(sample)
    if len(by_patient) > 1:
        chosen, left_out_by = list(by_patient.values()), "patient"
    else:
        chosen, left_out_by = [[sample] for sample in samples], "section"
    groups = []
    for group in chosen:
        share = TILES_A_GROUP // len(group)
        groups.append(np.concatenate([np.asarray(s.tiles()[spread(s.n_spots, share), cut, cut]) for s in group]))
    if len(groups) == 1:
        groups, left_out_by = np.array_split(groups[0], _PARTS), "part"
    if sum(map(len, groups)) < LEAST_TILES or min(map(len, groups)) < 2:
        return None
    return ReferenceTiles(tuple(groups), left_out_by)


def fit_reference(
    tiles: ReferenceTiles, mpp: float, embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
) -> TrustReference:
    """The reference.

    Parameters
    ----------
    tiles : ReferenceTiles
    mpp : float
        Of the tiles, microns per pixel.
    embed : callable, optional
        uint8 [N, T, T, 3] -> embeddings float32 [N, D]: the model itself. Without it there is no back-up by embeddings.
    """
    measures = [found[~is_glass(found)] for found in map(measure_tiles, tiles.groups)]
    measures = [found for found in measures if len(found) > 1]
    count = len(STATISTICS)
    ten = [found[:, :count] for found in measures]
    centre, scale, whiten = fit(np.concatenate(ten))
    distances = [mahalanobis(own, *fit(rest)[::2]) for own, rest in left_out(ten)]
    low, high = _ranges(measures)
    return TrustReference(
        mpp=mpp,
        tile_px=tiles.groups[0].shape[1],
        left_out_by=tiles.left_out_by,
        groups=len(measures),
        tiles=sum(map(len, measures)),
        centre=centre,
        spread=scale,
        whiten=whiten,
        distances=np.percentile(np.concatenate(distances), np.linspace(0, 100, PERCENTILES)),
        median=max(float(np.median(found)) for found in distances),
        low=low,
        high=high,
        embedding=None if embed is None else _fit_embedding(tiles, embed),
    )


def left_out(groups: Sequence[Array]) -> list[tuple[Array, Array]]:
    """Each group with all the others together."""
    return [
        (own, np.concatenate([other for place, other in enumerate(groups) if place != at]))
        for at, own in enumerate(groups)
    ]


def fit(values: Array, *, trim: bool = True) -> tuple[Array, Array, Array]:
    """Centre [S], spread [S] and whitening [S, S] of rows [N, S]."""
    from sklearn.covariance import LedoitWolf

    centre, scale = _centre_and_spread(values)
    z = np.clip((values - centre) / scale, -6, 6)
    covariance = LedoitWolf(assume_centered=True).fit(z).covariance_
    whiten = np.linalg.cholesky(np.linalg.inv(covariance)) / scale[:, None]
    if not trim:
        return centre, scale, whiten
    distance = mahalanobis(values, centre, whiten)
    return fit(values[distance <= np.quantile(distance, 1 - TRIMMED)], trim=False)


def _centre_and_spread(values: Array) -> tuple[Array, Array]:
    """Median, and 1.4826 times the median absolute deviation, at least `FLOOR` for the ten statistics."""
    centre = np.median(values, axis=0)
    scale = 1.4826 * np.median(np.abs(values - centre), axis=0)
    floor = np.full(values.shape[1], 0.02)
    floor[: len(FLOOR)] = FLOOR[: values.shape[1]]
    return centre, np.maximum(scale, floor)


def _ranges(measures: Sequence[Array]) -> tuple[Array, Array]:
    """Lowest and highest value of each measure: tails of (value - centre) / spread by the fit that left it out."""
    z = []
    for own, rest in left_out(measures):
        centre, scale = _centre_and_spread(rest)
        z.append((own - centre) / scale)
    centre, scale = _centre_and_spread(np.concatenate(measures))
    low, high = np.percentile(np.concatenate(z), TAILS, axis=0)
    return centre + scale * np.minimum(low, 0), centre + scale * np.maximum(high, 0)


def _fit_embedding(
    tiles: ReferenceTiles, embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
) -> EmbeddingReference | None:
    """Mean and shrunk covariance on the leading components; None where groups are too small to leave one out."""
    share = max(2, EMBEDDED_TILES // len(tiles.groups))
    chosen = [group[spread(len(group), share)] for group in tiles.groups]
    rows = embed(np.concatenate(chosen)).astype(np.float64)
    groups = np.split(rows, np.cumsum([len(group) for group in chosen])[:-1])
    if len(rows) < LEAST_TILES:
        return None
    centre, whiten = _whiten_components(rows)
    medians = [float(np.median(mahalanobis(own, *_whiten_components(rest)))) for own, rest in left_out(groups)]
    return EmbeddingReference(centre, whiten, max(medians), len(rows))


def _whiten_components(rows: Array) -> tuple[Array, Array]:
    """Mean [D] and whitening [D, K] on the K leading components, K at most a fifth of the rows."""
    from sklearn.covariance import LedoitWolf

    centre = rows.mean(axis=0)
    _, sizes, axes = np.linalg.svd(rows - centre, full_matrices=False)
    count = int(np.clip((sizes > 1e-6 * sizes[0]).sum(), 1, min(COMPONENTS, max(1, len(rows) // 5))))
    axes = axes[:count].T
    covariance = LedoitWolf().fit((rows - centre) @ axes).covariance_
    return centre, axes @ np.linalg.cholesky(np.linalg.inv(covariance))
