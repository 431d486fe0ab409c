"""From polygons to pixels and back: a pixel belongs to an area when its centre does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from shapely import Geometry, Polygon

_CROSSINGS_AT_ONCE = 4_000_000


def rasterise(area: Geometry, shape: tuple[int, int], scale_x: float, scale_y: float) -> NDArray[np.bool_]:
    """The pixels whose centres lie in an area: bool [h, w].

    Parameters
    ----------
    area : shapely geometry
        A valid polygon or multipolygon, level-0 pixels; holes are left out.
    shape : (int, int)
        Rows and columns.
    scale_x, scale_y : float
        Level-0 pixels per pixel.

    Notes
    -----
    Even-odd rule: a centre is inside when a ray to its left crosses the outlines an odd number of times (Foley et al.,
    Computer graphics, section 3.6). In a valid geometry holes and parts never overlap, so that all rings count alike.
    """
    rows, columns = shape
    crossed = np.zeros((rows, columns + 1), bool)
    for x0, y0, x1, y1 in _edges(area, scale_x, scale_y):
        # Row r has its centre at r + 0.5: rows from ceil(low - 0.5) up to, but not including, ceil(high - 0.5).
        first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, rows).astype(np.int64)
        last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, rows).astype(np.int64)
        for part in _slices(last - first):
            count = (last - first)[part]
            edge = np.repeat(np.arange(len(count)), count)
            row = np.repeat(first[part], count) + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
            ax, ay, bx, by = (values[part][edge] for values in (x0, y0, x1, y1))
            x = ax + (row + 0.5 - ay) * (bx - ax) / (by - ay)
            column = np.clip(np.ceil(x - 0.5), 0, columns).astype(np.int64)
            np.logical_xor.at(crossed, (row, column), True)
    inside: NDArray[np.bool_] = np.logical_xor.accumulate(crossed, axis=1)[:, :columns]
    return inside


def outlines(mask: NDArray[np.bool_]) -> Iterator[Polygon]:
    """Each connected piece of a mask as a polygon with its holes, in pixels, (0, 0) the mask's upper left corner.

    Outlines run half-way between pixel centres, so that `rasterise` gives the same mask again. Pieces connect along
    edges; they come row by row.
    """
    import contourpy
    import shapely

    labels, _ = ndimage.label(mask)
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        piece = np.pad(labels[rows, columns] == number, 1)
        drawn = contourpy.contour_generator(z=piece.astype(np.float64), fill_type=contourpy.FillType.OuterOffset)
        filled: Any = drawn.filled(0.5, 2.0)
        points, offsets = filled
        # A piece that connects along edges has one outline. Index -1 of the padded piece lies half a pixel outside.
        corner = np.array([columns.start - 0.5, rows.start - 0.5])
        for xy, offset in zip(points, offsets, strict=True):
            rings = [xy[a:b] + corner for a, b in pairwise(offset)]
            yield shapely.simplify(shapely.Polygon(rings[0], rings[1:]), 0)


def _edges(area: Geometry, scale_x: float, scale_y: float) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """x0, y0, x1, y1 of the edges of each ring that are not level, in pixels."""
    import shapely

    for part in shapely.get_parts(area):
        if part.geom_type != "Polygon":
            continue
        for ring in (part.exterior, *part.interiors):
            xy = shapely.get_coordinates(ring) / np.array([scale_x, scale_y])
            slanted = xy[:-1, 1] != xy[1:, 1]
            yield (*xy[:-1][slanted].T, *xy[1:][slanted].T)


def _slices(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Runs of edges that cross at most about `_CROSSINGS_AT_ONCE` rows together."""
    done = np.cumsum(counts) // _CROSSINGS_AT_ONCE
    starts = [0, *(np.flatnonzero(np.diff(done)) + 1).tolist(), len(counts)]
    yield from (slice(a, b) for a, b in pairwise(starts) if b > a)
