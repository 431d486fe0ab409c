"""What is done to tiles that a reference must tell from its own."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from stamp_deploy.trust.statistics import DENSITY, UNMIX

Tiles = NDArray[np.uint8]


STAINS = np.linalg.inv(UNMIX.astype(np.float64))
PEN = (20, 120, 60)


def restain(tiles: Tiles, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Tiles:
    """Tiles with other amounts [..., 3] of haematoxylin, eosin and the residual."""
    amounts = change(DENSITY[tiles].astype(np.float64) @ UNMIX)
    found: Tiles = np.clip(256 * np.exp(-(amounts @ STAINS)) - 1, 0, 255).round().astype(np.uint8)
    return found


def times(*factors: float) -> Callable[[Tiles], Tiles]:
    return lambda tiles: restain(tiles, lambda amounts: amounts * factors)


def blur(sigma: float) -> Callable[[Tiles], Tiles]:
    return lambda tiles: np.stack([ndimage.gaussian_filter(tile, (sigma, sigma, 0)) for tile in tiles])


def jpeg(tiles: Tiles) -> Tiles:
    out = np.empty_like(tiles)
    for place, tile in enumerate(tiles):
        stream = io.BytesIO()
        Image.fromarray(tile).save(stream, "JPEG", quality=10)
        out[place] = np.asarray(Image.open(stream))
    return out


def brown(tiles: Tiles) -> Tiles:
    """As in nuclear immunohistochemistry: DAB where haematoxylin was, which is paler, and no eosin."""
    return restain(tiles, lambda a: a[..., :1] * np.array([0.4, 0.0, 0.8]))


def fluorescence(tiles: Tiles) -> Tiles:
    """Haematoxylin as a blue light on black."""
    light = np.clip(160 * np.maximum(DENSITY[tiles] @ UNMIX[:, 0], 0), 0, 255)
    found: Tiles = np.stack([np.zeros_like(light), 0.15 * light, light], axis=-1).round().astype(np.uint8)
    return found


def pen(tiles: Tiles) -> Tiles:
    """A translucent green stroke over half of the tile."""
    out = tiles.astype(np.float64)
    side = tiles.shape[1]
    out[:, :, side // 4 : 3 * side // 4] = 0.4 * out[:, :, side // 4 : 3 * side // 4] + 0.6 * np.array(PEN)
    return out.round().astype(np.uint8)


CHANGES: dict[str, Callable[[Tiles], Tiles]] = {
    "blur, sigma 1 px": blur(1),
    "blur, sigma 2 px": blur(2),
    "blur, sigma 4 px": blur(4),
    "haematoxylin x 0.6": times(0.6, 1, 1),
    "haematoxylin x 1.5": times(1.5, 1, 1),
    "eosin x 0.6": times(1, 0.6, 1),
    "eosin x 1.5": times(1, 1.5, 1),
    "fluorescence": fluorescence,
    "brown, as DAB": brown,
    "pen over half": pen,
    "JPEG quality 10": jpeg,
}
