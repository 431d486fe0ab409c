"""The verdict on a slide, from the tiles that were measured. Rules and limits are those of `flags`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..bundle.reference import TrustReference
from .distance import embedding_distances, tile_distances
from .flags import DOUBTFUL, OUTSIDE, is_glass, tile_flags
from .statistics import STATISTICS
from .verdict import LEFT_OUT_FLAGS, SlideTrust, TileFlag, Verdict

MIN_TILES = 10
"""With fewer measured tiles nothing is said of a slide."""
STABLE_TILES = 50
"""From here on the median of a slide is stable; with 20 tiles one clean section in ten exceeds 1.5 (her2st)."""
MANY = 0.25
"""Share of measured tiles left out from which a slide is doubtful; twice that, and it is outside. Our own choice."""
SHOWN = 3
"""Statistics that are named in the reasons."""
RULE = (
    "tiles are left out of summaries where they are blurred, inked, dark or folded, not H&E, or lie more than 3 times "
    "as far from the training tiles as a left-out part of these does; tiles that were not measured are kept, unless "
    "the slide is outside"
)

_WORDS = {
    "haematoxylin mean": ("less haematoxylin", "more haematoxylin"),
    "haematoxylin deviation": ("less varied haematoxylin", "more varied haematoxylin"),
    "eosin mean": ("less eosin", "more eosin"),
    "eosin deviation": ("less varied eosin", "more varied eosin"),
    "residual mean": ("colours that haematoxylin and eosin do not explain", "a brown or other third colour"),
    "residual deviation": ("a less varied third colour", "a more varied third colour"),
    "sharpness": ("less fine detail", "more fine detail"),
    "sharpness for its contrast": ("less sharp edges", "sharper edges or noise"),
    "saturation": ("paler colours", "stronger colours"),
    "brightness": ("darker tiles", "brighter tiles"),
}


def not_judged(tiles: int, reason: str) -> SlideTrust:
    """No verdict on a slide of `tiles` tiles, and why."""
    return SlideTrust(
        "not judged",
        (reason,),
        tile_distance=np.full(tiles, np.nan, np.float32),
        tile_flags=np.zeros(tiles, np.uint16),
        tile_percentile=np.full(tiles, np.nan, np.float32),
    )


def judge(
    reference: TrustReference,
    tiles: int,
    rows: NDArray[np.int64],
    measures: NDArray[np.float64],
    embedding: NDArray[np.float32],
) -> SlideTrust:
    """The verdict.

    Parameters
    ----------
    reference : TrustReference
        Of the bundle.
    tiles : int
        Tiles N of the slide that have a score.
    rows : int64 [K]
        Which of them were measured.
    measures : float64 [K, 14]
        `MEASURES` of those.
    embedding : float32 [N, D]
        Embeddings of all.
    """
    tissue = ~is_glass(measures)
    rows, measures = rows[tissue], measures[tissue]
    if len(rows) < MIN_TILES:
        return not_judged(tiles, f"{len(rows)} tiles of tissue were measured, and {MIN_TILES} are needed")
    distances = tile_distances(reference, measures)
    ratio = distances / reference.median
    found = tile_flags(reference, measures, ratio)
    slide = float(np.median(ratio))
    beside = _embedding_ratio(reference, embedding[rows])
    share = float(((found & np.uint16(LEFT_OUT_FLAGS)) != 0).mean())
    verdict = _verdict(slide, beside, share)
    none = not_judged(tiles, "")
    none.tile_distance[rows], none.tile_flags[rows] = ratio, found
    if verdict == "outside":  # nothing speaks for the tiles that nobody measured
        unseen = np.ones(tiles, bool)
        unseen[rows] = False
        none.tile_flags[unseen] = int(TileFlag.NOT_MEASURED)
    none.tile_percentile[rows] = np.interp(distances, reference.distances, np.arange(len(reference.distances)))
    return replace(
        none,
        verdict=verdict,
        reasons=_reasons(reference, measures, found, slide, beside, verdict),
        distance=slide,
        judged_tiles=len(rows),
        rule=RULE,
    )


def _verdict(slide: float, beside: float | None, share: float) -> Verdict:
    """Statistics and flags decide; embeddings alone make a slide doubtful at most: they miss stain and resolution."""
    if slide > OUTSIDE or share > 2 * MANY:
        return "outside"
    if slide > DOUBTFUL or share > MANY or (beside is not None and beside > DOUBTFUL):
        return "doubtful"
    return "inside"


def _embedding_ratio(reference: TrustReference, embedding: NDArray[np.float32]) -> float | None:
    if reference.embedding is None or len(embedding) < STABLE_TILES:
        return None
    return float(np.median(embedding_distances(reference.embedding, embedding)) / reference.embedding.median)


def _reasons(
    reference: TrustReference,
    measures: NDArray[np.float64],
    flags: NDArray[np.uint16],
    slide: float,
    beside: float | None,
    verdict: Verdict,
) -> tuple[str, ...]:
    """What was seen, and no more: that a slide is outside does not say that its scores are wrong."""
    said = [
        f"its tiles lie {slide:.1f} times as far from the training tiles as a left-out {reference.left_out_by} does"
    ]
    if verdict != "inside":
        said += _differences(reference, measures)
    if beside is not None and beside > DOUBTFUL:
        said.append(f"its embeddings lie {beside:.1f} times as far")
    for flag in TileFlag:
        share = float(((flags & np.uint16(flag)) != 0).mean())
        if share >= 0.05:
            said.append(f"{share:.0%} of the measured tiles are {flag.label}")
    if len(measures) < STABLE_TILES:
        said.append(f"only {len(measures)} tiles were measured")
    if reference.left_out_by != "patient":
        said.append("the reference is of one patient: how much patients differ is not known")
    return tuple(said)


def _differences(reference: TrustReference, measures: NDArray[np.float64]) -> list[str]:
    """The statistics whose median lies farthest from the training tiles', in words and numbers."""
    count = len(STATISTICS)
    middle = np.median(measures[:, :count], axis=0)
    away = np.abs(middle - reference.centre) / reference.spread
    said = []
    for place in np.argsort(-away)[:SHOWN]:
        if away[place] > 2:
            words = _WORDS[STATISTICS[place]][int(middle[place] > reference.centre[place])]
            said.append(
                f"{words} ({STATISTICS[place]} {middle[place]:.2f}, training {reference.low[place]:.2f} to "
                f"{reference.high[place]:.2f})"
            )
    return said
