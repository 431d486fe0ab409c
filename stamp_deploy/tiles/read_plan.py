"""Which pyramid level and which JPEG scale a tile is read from.

Every level that is fine enough is a candidate, at every scale (1, 1/2, 1/4, 1/8) at which the decoder
can leave out the high DCT frequencies. The cheapest candidate that is never coarser than the target
wins: the fewest source pixels, then the largest reduction inside the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SlideError
from ..grid import Grid
from ..slide.backends import Level

FINE_ENOUGH = 1.0 + 1e-3
"""Source pixels per tile pixel may fall this little below 1: downsamples are ratios of rounded sizes."""

DCT_SCALES = (1, 2, 4, 8)


@dataclass(frozen=True)
class ReadPlan:
    """How a slide's tiles are read.

    Attributes
    ----------
    route : str
        "jpeg-tiff", "openslide" or "pyvips".
    level : int
    dct_scale : int
        Denominator of the JPEG decoding scale: 1, 2, 4 or 8.
    residual_x, residual_y : float
        Source pixels, after the decoding scale, per tile pixel; 1 or more but for rounding.
    why : str
    """

    route: str
    level: int
    dct_scale: int
    residual_x: float
    residual_y: float
    why: str

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return asdict(self)


def choose_plan(
    levels: Sequence[Level],
    grid: Grid,
    *,
    route: str,
    scales: Sequence[Sequence[int]] | None = None,
    exact: bool = False,
) -> ReadPlan:
    """The cheapest correct level and decoding scale.

    Parameters
    ----------
    levels : sequence of Level
    grid : Grid
        Gives the level-0 pixels per tile pixel.
    route : str
    scales : sequence of sequence of int, optional
        The decoding scales (denominators) possible at each level; full scale only by default.
    exact : bool
        Full scale only.

    Raises
    ------
    SlideError
        Every level is coarser than the target (the grid refuses such slides first).
    """
    factor_x, factor_y = grid.span_x / grid.tile_px, grid.span_y / grid.tile_px
    candidates: list[tuple[float, int, ReadPlan]] = []
    for level in levels:
        for scale in (1,) if exact or scales is None else scales[level.index]:
            x = factor_x / level.downsample_x / scale
            y = factor_y / level.downsample_y / scale
            if min(x, y) * FINE_ENOUGH < 1 and not (level.index == 0 and scale == 1):
                continue
            decoded = f"level {level.index} ({level.width} x {level.height})"
            reduced = f" decoded at 1/{scale}" if scale > 1 else ""
            left = "exactly" if abs(x - 1) < 1e-9 and abs(y - 1) < 1e-9 else f"resampled by {x:.4g} x {y:.4g}"
            why = f"{decoded}{reduced}, {left}: the fewest pixels that are not coarser than {grid.target_mpp:g} um/px"
            plan = ReadPlan(route, level.index, scale, x, y, why)
            # bytes to entropy-decode count most: pixels of the level, then pixels after the scale
            candidates.append((1 / (level.downsample_x * level.downsample_y), -scale, plan))
    if not candidates:
        raise SlideError("every level is coarser than the model wants", remedy="use a bundle for this resolution")
    return min(candidates, key=lambda item: item[:2])[2]
