"""Tiles on their way into a model: crops around the spot, turns, stain jitter, normalisation. All of it in torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stamp_deploy.errors import UsageError
from stamp_deploy.trust.statistics import UNMIX as STAIN_UNMIX

from .cohort.shards import Tiles

UNMIX = torch.tensor(STAIN_UNMIX)
"""Optical density (R, G, B) -> concentrations of haematoxylin, eosin and what is left: [3, 3]."""
STAINS = torch.tensor(np.linalg.inv(STAIN_UNMIX).astype(np.float32))
"""The inverse: concentrations -> optical density."""


def crop_centre(tiles: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The middle of each tile: uint8 [N, S, S, 3] -> [N, side, side, 3], a view.

    Raises
    ------
    UsageError
        The tiles are smaller.
    """
    first = _margin(tiles.shape[1], side)
    return tiles[:, first : first + side, first : first + side]


def crop_shifted(
    tiles: Tiles, rows: NDArray[np.integer], side: int, reach: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Crops around the middle of some tiles, each moved by up to `reach` pixels: uint8 [n, side, side, 3].

    `reach` is cut to what the stored tile allows.
    """
    out = np.empty((len(rows), side, side, 3), np.uint8)
    corners = shifted_corners(tiles.shape[1], len(rows), side, reach, rng)
    for slot, row, (top, left) in zip(out, rows, corners, strict=True):
        slot[:] = tiles[row, top : top + side, left : left + side]
    return out


def shifted_corners(have: int, count: int, side: int, reach: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Top and left of crops as `crop_shifted` makes them, of tiles of `have` pixels: int32 [n, 2]."""
    first = _margin(have, side)
    reach = min(reach, first, have - side - first)
    moves = rng.integers(-reach, reach + 1, (count, 2)) if reach > 0 else np.zeros((count, 2), int)
    return np.ascontiguousarray(first + moves[:, ::-1], np.int32)


def _margin(have: int, side: int) -> int:
    """How far the middle `side` of `have` pixels is from the edge."""
    if have < side:
        raise UsageError(
            f"the cohort's tiles are {have} px and the model wants {side} px",
            remedy=f"build the cohort again with tile_px = {side} or more",
        )
    return (have - side) // 2


def to_unit(tiles: NDArray[np.uint8] | Tensor) -> Tensor:
    """uint8 [N, T, T, 3] -> float32 [N, 3, T, T] in [0, 1]."""
    if isinstance(tiles, np.ndarray):
        tiles = torch.from_numpy(np.require(tiles, requirements=("C", "W")))  # a mapped file is copied
    return tiles.permute(0, 3, 1, 2).contiguous().float() / 255


def turn(x: Tensor, k: int) -> Tensor:
    """One of the 8 flips and quarter turns (k = 0: none) of images [N, C, T, T]."""
    if k & 4:
        x = x.transpose(-1, -2)
    flips = [axis for bit, axis in ((1, -1), (2, -2)) if k & bit]
    return x.flip(flips) if flips else x


def turn_each(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Each image under a flip or turn of its own."""
    which = rng.integers(0, 8, len(x))
    out = torch.empty_like(x)
    for k in np.unique(which):
        rows = torch.from_numpy(np.flatnonzero(which == k)).to(x.device)
        out[rows] = turn(x[rows], int(k))
    return out


def vary(x: Tensor, rng: np.random.Generator, *, hed_jitter: float, flips: bool) -> Tensor:
    """Images [N, 3, T, T] in [0, 1] as training sees them: stain jitter of sd `hed_jitter` (0: none), then turns."""
    if hed_jitter > 0:
        x = jitter_stain(x, hed_jitter, rng)
    return turn_each(x, rng) if flips else x


def jitter_stain(x: Tensor, sd: float, rng: np.random.Generator) -> Tensor:
    """Other amounts of stain: concentrations scaled by 1 + sd e and shifted by 0.3 sd e, e normal, per tile and stain.

    After Tellez et al. 2018 ("Whole-slide mitosis detection ... with stain augmentation"). Strong jitter erases the
    amount of haematoxylin, which is signal here: keep sd near .03.

    Parameters
    ----------
    x : float32 [N, 3, T, T], RGB in [0, 1]
    """
    mix, shift = (torch.from_numpy(a).to(x.device) for a in draw_stains(len(x), sd, rng))
    density = -torch.log(x.clamp_min(1 / 255)).flatten(2)
    moved = torch.baddbmm(shift[:, :, None], mix, density)
    return torch.exp(-moved).clamp(max=1).view_as(x)


def draw_stains(n: int, sd: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Other amounts of stain as a change of optical densities, d -> mix @ d + shift: float32 [n, 3, 3], [n, 3]."""
    stains = STAINS.numpy()
    scale = (1 + sd * rng.standard_normal((n, 3))).astype(np.float32)
    shift = (0.3 * sd * rng.standard_normal((n, 3))).astype(np.float32) @ stains
    mix = np.einsum("cd,nd,de->nec", STAIN_UNMIX, scale, stains)
    return np.ascontiguousarray(mix, np.float32), np.ascontiguousarray(shift, np.float32)


def normalise(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std a channel."""
    m = torch.tensor(mean, device=x.device).view(1, 3, 1, 1)
    s = torch.tensor(std, device=x.device).view(1, 3, 1, 1)
    return (x - m) / s


def stain_statistics(x: Tensor) -> Tensor:
    """Means, deviations, percentiles and gradients of colour, stain and grey: float32 [N, 58], of RGB [N, 3, T, T].

    29 numbers of the whole tile and the same of its middle half. They are what a self-supervised warm-up learns to
    predict (see warm_up.py): kin to those of stain_features.py, though not the same, and on another field of view.
    """
    quarter = x.shape[-1] // 4
    middle = x[:, :, quarter:-quarter, quarter:-quarter] if quarter else x
    return torch.cat([_statistics(x), _statistics(middle)], dim=1)


def _statistics(x: Tensor) -> Tensor:
    density = -torch.log(x.clamp_min(1 / 255)).flatten(2)
    stains = (UNMIX.T.to(x.device) @ density).view_as(x)
    grey, haematoxylin = x.mean(1), stains[:, 0]
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], device=x.device)
    columns = [x.mean((2, 3)), x.std((2, 3)), stains.mean((2, 3)), stains.std((2, 3))]
    for image in (grey, haematoxylin):
        columns.append(torch.quantile(image[:, ::2, ::2].flatten(1), levels, dim=1).T)
    for image in (grey, haematoxylin):
        slope = torch.hypot(image[:, 1:, 1:] - image[:, :-1, 1:], image[:, 1:, 1:] - image[:, 1:, :-1]).flatten(1)
        columns += [slope.mean(1, keepdim=True), slope.std(1, keepdim=True)]
        if image is grey:
            columns.append(torch.quantile(slope[:, ::4], levels[2:], dim=1).T)
    return torch.cat(columns, dim=1)
