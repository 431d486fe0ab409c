"""The flags of a tile, each by a rule that says what was seen.

Limits are the reference's: the 0.5 and 99.5 percentiles of training tiles whose patient (or section) was left out. A
reference of one patient says little about others, so its limits are widened; how far was measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle.reference import TrustReference
from .statistics import MEASURES
from .verdict import TileFlag

DOUBTFUL, OUTSIDE = 1.5, 3.0
"""Median distance over the largest median of a reference section left out. Measured on her2st: a clean section of the
same patient .76, of another patient 1.30; another scanner, another stain and blur of 1 pixel are above 3. Both limits
were chosen after these data were seen."""
ONE_PATIENT = 1.5
"""How much wider limits are where the reference is of one patient. Measured on her2st: another patient's clean tiles
lie 1.3 times as far as the reference's own sections do."""
INK_SHARE = 0.15
"""Least share of a tile that is ink: pale eosin has the hue of red ink in up to .14 of a clean tile (her2st, C2)."""
BLACK_SHARE = 0.1
"""Least share that is dark and grey: folds and black ink; clean tiles had .014 at most."""
GREY_SHARE = 0.05
"""A tile with less colour than this is no stained tissue."""
HE_HUE_SHARE = 0.15
"""Of H&E at least so much of the coloured area is least in green; clean tiles had .22 or more."""
GLASS_BRIGHTNESS = 0.8
"""A tile with no colour that is brighter than this is glass, and is not judged."""
_AT = {name: place for place, name in enumerate(MEASURES)}


def is_glass(measures: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tiles without colour that are bright, bool [N]: glass says nothing about the stain."""
    return np.asarray((measures[:, _AT["coloured"]] < GREY_SHARE) & (measures[:, _AT["brightness"]] > GLASS_BRIGHTNESS))


def limits(reference: TrustReference) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest value of each measure that is not flagged: float64 [14] each."""
    widen = 1.0 if reference.left_out_by == "patient" else ONE_PATIENT
    middle, half = (reference.low + reference.high) / 2, (reference.high - reference.low) / 2
    return middle - widen * half, middle + widen * half


def tile_flags(
    reference: TrustReference, measures: NDArray[np.float64], ratio: NDArray[np.float64]
) -> NDArray[np.uint16]:
    """`TileFlag` of each tile: uint16 [N].

    Parameters
    ----------
    measures : float64 [N, 14]
    ratio : float64 [N]
        Distance over the reference's median, as in `SlideTrust.tile_distance`.

    Notes
    -----
    Blurred: the Laplacian is low for the gradient that is there (a low Laplacian alone fires on 43 % of another
    patient's clean tiles). Ink: a hue that haematoxylin and eosin do not give (`stamp_deploy.tissue.ink`). Dark or
    folded: the brightest channel is low, or much is dark and grey. Over-stained: more haematoxylin or eosin than any
    training tile. Not H&E: no colour, or of other hues, or a mean residual twice as far from the middle of the training
    tiles' range as its ends are. Foreign: farther than `OUTSIDE`.
    """
    low, high = limits(reference)
    value = {name: measures[:, place] for name, place in _AT.items()}
    residual = _AT["residual mean"]
    reach = high[residual] - low[residual]
    seen = {
        TileFlag.BLURRED: value["sharpness for its contrast"] < low[_AT["sharpness for its contrast"]],
        TileFlag.INK: value["ink"] > max(high[_AT["ink"]], INK_SHARE),
        TileFlag.DARK_OR_FOLD: (value["brightness"] < low[_AT["brightness"]])
        | (value["black"] > max(high[_AT["black"]], BLACK_SHARE)),
        TileFlag.OVER_STAINED: (value["haematoxylin mean"] > high[_AT["haematoxylin mean"]])
        | (value["eosin mean"] > high[_AT["eosin mean"]]),
        TileFlag.NOT_HE: (value["coloured"] < min(low[_AT["coloured"]], GREY_SHARE))
        | (value["hue of H&E"] < min(low[_AT["hue of H&E"]], HE_HUE_SHARE))
        | (np.abs(value["residual mean"] - (low[residual] + high[residual]) / 2) > reach),
        TileFlag.FOREIGN: ratio > OUTSIDE,
    }
    found = np.zeros(len(measures), np.uint16)
    for flag, where in seen.items():
        found[where] |= np.uint16(flag)
    return found
