"""Polygons to pixels against shapely's own answer, and masks to polygons and back."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from scipy import ndimage

from stamp_deploy.annotations import outlines, rasterise


def centres(shape: tuple[int, int], scale_x: float, scale_y: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (x + 0.5) * scale_x, (y + 0.5) * scale_y


@pytest.mark.parametrize("seed", range(8))
def test_a_pixel_is_inside_when_its_centre_is(seed: int) -> None:
    random = np.random.default_rng(seed)
    angle = np.sort(random.uniform(0, 2 * np.pi, 40))
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) * random.uniform(60, 200, (40, 1)) + (150, 120)
    hole = shapely.Point(150, 120).buffer(40)
    area = shapely.Polygon(ring).buffer(0).difference(hole).union(shapely.box(300, 10, 390, 60))
    mask = rasterise(area, (61, 97), 4.1, 3.9)
    want = shapely.contains_xy(area, *centres((61, 97), 4.1, 3.9))
    assert np.array_equal(mask, want)
    assert not mask[30, 36]  # the hole


def test_rectangles_on_pixel_borders_are_exact_and_what_is_outside_is_cut() -> None:
    assert rasterise(shapely.box(8, 4, 20, 12), (5, 6), 4, 4).sum() == 3 * 2
    assert rasterise(shapely.box(-99, -99, 99, 99), (5, 6), 4, 4).all()
    assert not rasterise(shapely.box(30, 0, 40, 9), (5, 6), 4, 4).any()


@pytest.mark.parametrize("smooth", [0.0, 1.0, 3.0])
def test_a_mask_comes_back_from_its_outlines(smooth: float) -> None:
    noise = np.random.default_rng(4).normal(size=(90, 120))
    mask = (ndimage.gaussian_filter(noise, smooth) if smooth else noise) > 0
    mask[0, :] = mask[:, -1] = True
    pieces = list(outlines(mask))
    assert all(piece.is_valid for piece in pieces)
    assert len(pieces) == ndimage.label(mask)[1]
    again = np.zeros_like(mask)
    for piece in pieces:
        part = rasterise(shapely.transform(piece, lambda xy: xy * (3, 5)), mask.shape, 3, 5)
        assert not (again & part).any()
        again |= part
    assert np.array_equal(again, mask)


def test_an_empty_mask_has_no_outline() -> None:
    assert list(outlines(np.zeros((4, 4), bool))) == []
