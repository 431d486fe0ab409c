"""Sections that are stained far more faintly than others on their slide.

One threshold for a whole slide lies between its glass and its darkest section: a section at a third of the stain falls
below it, whole or but for a few nuclei. So what is coloured, and was hardly found, is looked at again, one piece after
the other, against the glass around it. What stays below all thresholds is measured, so that the result can say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .components import areas, dilate, drop_small, some_of

FOUND_SHARE, FAINT_SHARE = 0.9, 0.75
"""A piece is faint where the slide's threshold finds no more than so much of it, and the stronger part of it (its
90th percentile) has no more than so much of the saturation that the tissue found has."""
MIN_CONTRAST = 0.03
"""HSV saturation by which a faint piece exceeds the glass around it, at least; and 3 times that glass's spread."""
MIN_DIAMETER = 1.25
"""Of a faint section, in the rule's smallest objects: what is smaller could be dust."""
MAX_PIECES = 500
MARGIN_UM, EDGE_UM = 200.0, 120.0
"""Glass around a piece that it is compared with; what lies so close to tissue is its edge, and no piece of its own."""


@dataclass(frozen=True, eq=False)
class FaintTissue:
    """What lies between the glass and the slide's threshold.

    Attributes
    ----------
    mask : bool [h, w]
        Sections found by their own contrast.
    sections : int
    left : bool [h, w]
        Coloured pieces that were not taken, and do not touch tissue.
    """

    mask: NDArray[np.bool_]
    sections: int
    left: NDArray[np.bool_]


def find_faint(
    saturation: NDArray[np.float32],
    usable: NDArray[np.bool_],
    stained: NDArray[np.bool_],
    *,
    threshold: float,
    floor: float,
    object_px: float,
    mpp: float,
) -> FaintTissue:
    """Look at each coloured piece that the threshold of the whole slide hardly finds.

    Parameters
    ----------
    saturation : float32 [h, w]
        HSV, 0 to 1.
    usable : bool [h, w]
        Neither ink nor black.
    stained : bool [h, w]
        Of a hue that haematoxylin or eosin has: green is the weakest.
    threshold, floor : float
        The slide's threshold, and the saturation under which nothing is tissue.
    object_px : float
        Diameter of the smallest object that counts, pixels.
    mpp : float
        Microns per pixel.
    """
    taken = np.zeros(usable.shape, bool)
    coloured = ndimage.binary_opening(usable & (saturation > floor))
    labels, count = ndimage.label(coloured)
    if threshold <= floor or count == 0:
        return FaintTissue(taken, 0, taken)
    found = usable & (saturation > threshold)
    strong = FAINT_SHARE * float(np.percentile(some_of(saturation, found), 90)) if found.any() else 1.0
    sizes = areas(labels, count)
    shares = areas(labels, count, found) / np.maximum(sizes, 1)
    sizes[0] = 0
    smallest = np.pi / 4 * (MIN_DIAMETER * object_px) ** 2
    pieces = [i for i in np.argsort(-sizes)[:MAX_PIECES] if sizes[i] >= smallest and shares[i] < FOUND_SHARE]
    windows = ndimage.find_objects(labels)
    sections = 0
    for i in pieces:
        window = _grown(windows[i - 1], max(2, round(MARGIN_UM / mpp)), usable.shape)
        own = labels[window] == i
        if float(np.percentile(saturation[window][own], 90)) > strong:
            continue
        glass = saturation[window][usable[window] & (labels[window] == 0)]
        values = saturation[window][own]
        if not _stands_out(values, glass):
            continue
        piece = own & (saturation[window] > _own_threshold(values, glass, floor, threshold))
        if stained[window][piece].mean() > 0.5:
            taken[window] |= piece
            sections += 1
    del labels
    glass = some_of(saturation, usable & (saturation <= floor))
    level = float(np.median(glass)) if len(glass) else 0.0
    near = dilate(found | taken, max(1, round(EDGE_UM / mpp)))
    between = coloured & ~found & ~near & (saturation > level + MIN_CONTRAST)
    return FaintTissue(taken, sections, drop_small(between, smallest))


def _stands_out(values: NDArray[np.float32], glass: NDArray[np.float32]) -> bool:
    if not len(glass):
        return True
    level = float(np.median(glass))
    spread = 1.4826 * float(np.median(np.abs(glass - level)))
    return float(np.median(values)) - level > max(MIN_CONTRAST, 3 * spread)


def _own_threshold(values: NDArray[np.float32], glass: NDArray[np.float32], floor: float, most: float) -> float:
    """Half-way between the piece and the glass around it."""
    level = float(np.median(glass)) if len(glass) else 0.0
    return float(np.clip((float(np.median(values)) + level) / 2, floor, most))


def _grown(window: tuple[slice, slice], margin: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    (rows, height), (columns, width) = zip(window, shape, strict=True)
    return (
        slice(max(0, rows.start - margin), min(height, rows.stop + margin)),
        slice(max(0, columns.start - margin), min(width, columns.stop + margin)),
    )
