"""The statistics of the compiled core against numpy, and what each is sensitive to."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stamp_deploy import _tiler
from stamp_deploy.trust.statistics import DENSITY, MEASURES, UNMIX, measure_tiles

LATTICE, FOCUS = 80, 112


def plain(tile: NDArray[np.uint8]) -> NDArray[np.float64]:
    """`MEASURES` of one tile uint8 [T, T, 3], pixel by pixel as the rules are written."""
    side = len(tile)
    step = -(-side // LATTICE)
    lattice = tile[step // 2 :: step, step // 2 :: step].astype(np.int64)
    stains = DENSITY.astype(np.float64)[lattice] @ UNMIX.astype(np.float64)
    red, green, blue = np.moveaxis(lattice, -1, 0)
    top, low = lattice.max(-1), lattice.min(-1)
    saturation = np.where(top > 0, (top - low) / np.maximum(top, 1), 0)
    lean, span = np.abs(blue - green), red - green
    cool = (green > red + 16) & ((green > blue - 25) | (blue > red + 25)) & (saturation > 0.25)
    warm = (saturation > 0.45) & (red > 110) & (span > 0.4 * red) & (lean < 0.12 * span)
    coloured = top - low >= 16
    length = min(side, FOCUS + 2)
    first = (side - length) // 2
    square = tile[first : first + length, first : first + length].astype(np.float64)
    grey = (square @ np.array([77, 150, 29]) + 8) // 16 / 16
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    across, down = grey[1:-1, 2:] - grey[1:-1, :-2], grey[2:, 1:-1] - grey[:-2, 1:-1]
    variance, gradient = laplacian.var() + 1e-3, ((across**2 + down**2) / 4).mean() + 1e-3
    pairs = [f(stains[..., k]) for k in range(3) for f in (np.mean, np.std)]
    return np.array(
        [
            *pairs, np.log(variance), np.log(variance / gradient), saturation.mean(), top.mean() / 255,
            (cool | warm).mean(), ((top < 90) & (saturation < 0.25)).mean(), coloured.mean(),
            (green == low)[coloured].mean() if coloured.any() else 1.0,
        ]
    )  # fmt: skip


@pytest.mark.parametrize("side", [16, 64, 113, 114, 115, 224, 256, 300])
def test_the_core_measures_what_numpy_measures(side: int) -> None:
    rng = np.random.default_rng(side)
    cells = rng.integers(0, 256, (3, side // 4 + 1, side // 4 + 1, 3))
    tiles = cells.repeat(4, 1).repeat(4, 2)[:, :side, :side] + rng.integers(-20, 20, (3, side, side, 3))
    tiles = np.clip(tiles, 0, 255).astype(np.uint8)
    found = measure_tiles(tiles)
    assert found.shape == (3, len(MEASURES))
    np.testing.assert_allclose(found, [plain(tile) for tile in tiles], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("value", [0, 255])
def test_flat_tiles_have_finite_measures(value: int) -> None:
    assert np.isfinite(measure_tiles(np.full((1, 32, 32, 3), value, np.uint8))).all()


def test_only_the_chosen_pixels_count() -> None:
    """At 224 px colour is measured at every third pixel, focus in the 112 in the middle."""
    tile = np.full((1, 224, 224, 3), 200, np.uint8)
    odd = tile.copy()
    odd[:, ::3, ::3] = 0  # beside the lattice, which starts at 1; but within reach of the Laplacian
    a, b = measure_tiles(tile)[0], measure_tiles(odd)[0]
    colour = [i for i, name in enumerate(MEASURES) if not name.startswith("sharp")]
    np.testing.assert_array_equal(a[colour], b[colour])
    assert b[6] > a[6]
    edge = tile.copy()
    edge[:, :50] = 0
    np.testing.assert_array_equal(measure_tiles(edge)[0][6:8], a[6:8])


def test_wrong_arrays_are_refused() -> None:
    good = np.zeros((1, 16, 16, 3), np.uint8)
    for tiles in (
        np.zeros((1, 16, 8, 3), np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
        np.zeros((1, 9, 9, 4), np.uint8),
    ):
        with pytest.raises(ValueError, match="square RGB"):
            _tiler.tile_statistics(tiles, DENSITY, UNMIX)
    with pytest.raises(ValueError, match="256"):
        _tiler.tile_statistics(good, DENSITY[:9], UNMIX)
    with pytest.raises(ValueError, match="3 x 3"):
        _tiler.tile_statistics(good, DENSITY, np.ascontiguousarray(UNMIX[:2]))
    assert len(measure_tiles(good[:0])) == 0
