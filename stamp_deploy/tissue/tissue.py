"""Where a slide is tissue: saturation above Otsu's threshold on a thumbnail, ink left out.

Glass has no colour, stained tissue has: the HSV saturation of a slightly blurred thumbnail is split by Otsu's method
(Otsu 1979), with a floor under which nothing is tissue, so that bare glass gives an empty mask, and a ceiling above
which everything is, so that a slide that is tissue from edge to edge is not cut in two. Faint sections are found by
their own contrast (faint.py), marker ink is left out (ink.py). Glass that the lamp tints is made grey first. For H&E.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import BundleError
from ..grid import HasSize
from ..system.memory import release_memory
from .components import BAND_ROWS, dilate, drop_small
from .faint import FaintTissue, find_faint
from .ink import find_ink, ink_hues

WHITE_MIN, WHITE_TINT = 180, 0.10
"""The darkest and the most coloured white that still counts as glass: grey levels, HSV saturation."""
MIN_LEFT, MIN_LEFT_OF_TISSUE = 0.001, 0.05
"""Shares of the slide, and of its tissue, above which what was left out is worth a warning."""


@dataclass(frozen=True)
class TissueRule:
    """Every number that decides what is tissue.

    Attributes
    ----------
    method : str
        "saturation-otsu".
    min_fraction : float
        Share of a tile that must be tissue for the tile to be scored, 0 to 1.
    mask_mpp : float
        Resolution of the mask, microns per pixel; the thumbnail is at most `max_px` wide or high.
    max_px : int
        Largest side of the thumbnail, pixels.
    min_saturation, max_saturation : float
        Bounds of the threshold, HSV saturation 0 to 1.
    blur_um, close_um, min_object_um, min_hole_um : float
        Gaussian sigma, closing radius, and the diameters below which an island is dropped and a hole is
        filled, microns.
    exclude_ink : bool
        Leave out marker ink.
    """

    method: str = "saturation-otsu"
    min_fraction: float = 0.25
    mask_mpp: float = 8.0
    max_px: int = 4096
    min_saturation: float = 0.06
    max_saturation: float = 0.25
    blur_um: float = 8.0
    close_um: float = 24.0
    min_object_um: float = 80.0
    min_hole_um: float = 80.0
    exclude_ink: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The rule as JSON values, for bundle.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> TissueRule:
        """Read a rule back; fields that are left out take their defaults.

        Raises
        ------
        BundleError
            A field or the method is unknown.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(value) - known)
        if unknown or value.get("method", cls.method) != cls.method:
            what = f"fields {unknown}" if unknown else f"method {value['method']!r}"
            raise BundleError(f"the tissue rule has unknown {what}", remedy="use a newer stamp-deploy")
        return cls(**value)


class HasThumbnail(HasSize, Protocol):
    """What tissue finding needs of a slide."""

    @property
    def damage(self) -> Sequence[tuple[int, int, int, int]]: ...
    def thumbnail(self, max_px: int) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue of a whole slide.

    Attributes
    ----------
    mask : bool [h, w]
    scale_x, scale_y : float
        Level-0 pixels per mask pixel.
    rule : TissueRule
    threshold : float or None
        Saturation above which a pixel counted, 0 to 1; None where the mask was drawn, not found.
    fraction : float
        Share of the slide that is tissue, 0 to 1.
    faint_sections : int
        Sections that only their own contrast showed.
    left_fraction : float
        Share of the slide that is coloured more than glass and was not taken for tissue, 0 to 1.
    """

    mask: NDArray[np.bool_]
    scale_x: float
    scale_y: float
    rule: TissueRule
    threshold: float | None
    fraction: float
    faint_sections: int = 0
    left_fraction: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know of the tissue."""
        notes = []
        if self.faint_sections:
            notes.append(
                f"found by their own contrast, far fainter than the rest: {self.faint_sections} pieces of tissue"
            )
        if self.threshold is not None and self.left_fraction > max(MIN_LEFT, MIN_LEFT_OF_TISSUE * self.fraction):
            notes.append(
                f"{self.left_fraction:.1%} of the slide is coloured more than glass and less than the threshold of "
                f"{self.threshold:.3f}, and was not scored: look at the overview"
            )
        return tuple(notes)

    def tile_fractions(self, coords: NDArray[np.int64], span_x: float, span_y: float) -> NDArray[np.float32]:
        """Share of each tile that is tissue, float32 [N]; the part beyond the slide counts as glass.

        Exact area sums by an integral image, with bilinear interpolation at fractional borders.
        """
        height, width = self.mask.shape
        integral = np.zeros((height + 1, width + 1), np.int32)
        np.cumsum(self.mask, axis=0, out=integral[1:, 1:])
        np.cumsum(integral, axis=1, out=integral)
        x0 = np.clip(coords[:, 0] / self.scale_x, 0, width)
        x1 = np.clip((coords[:, 0] + span_x) / self.scale_x, 0, width)
        y0 = np.clip(coords[:, 1] / self.scale_y, 0, height)
        y1 = np.clip((coords[:, 1] + span_y) / self.scale_y, 0, height)
        area = _at(integral, y1, x1) - _at(integral, y0, x1) - _at(integral, y1, x0) + _at(integral, y0, x0)
        del integral
        release_memory()
        whole = (span_x / self.scale_x) * (span_y / self.scale_y)
        return np.clip(area / whole, 0, 1).astype(np.float32)


def _at(integral: NDArray[np.int32], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = ndimage.map_coordinates(integral, [y, x], np.float64, order=1, mode="nearest")
    return values


def mask_shape(slide: HasSize, rule: TissueRule) -> tuple[int, int]:
    """Rows and columns of the mask that `find_tissue` makes of a slide."""
    scale = max(max(slide.width, slide.height) / _mask_px(slide, rule), 1)
    return max(1, round(slide.height / scale)), max(1, round(slide.width / scale))


def _mask_px(slide: HasSize, rule: TissueRule) -> int:
    """Longer side of the thumbnail on which tissue is found."""
    mpp_x, mpp_y = slide.mpp_xy
    longest_um = max(slide.width * mpp_x, slide.height * mpp_y)
    return int(np.clip(round(longest_um / rule.mask_mpp), 1, rule.max_px))


def find_tissue(slide: HasThumbnail, rule: TissueRule) -> TissueMask:
    """Find the tissue of an open slide on a thumbnail of about `rule.mask_mpp`.

    What the thumbnail could not show counts as tissue: its tiles are tried instead of being passed over as glass.
    """
    mpp_x, mpp_y = slide.mpp_xy
    rgb = slide.thumbnail(_mask_px(slide, rule))
    scale_x, scale_y = slide.width / rgb.shape[1], slide.height / rgb.shape[0]
    mask, threshold, faint = _find(rgb, rule, (scale_x * mpp_x + scale_y * mpp_y) / 2)
    left, sections = float((faint.left & ~mask).mean()), faint.sections
    del faint
    release_memory()
    for x, y, w, h in slide.damage:
        mask[int(y / scale_y) : int((y + h) / scale_y) + 1, int(x / scale_x) : int((x + w) / scale_x) + 1] = True
    return TissueMask(mask, scale_x, scale_y, rule, threshold, float(mask.mean()), sections, left)


def find_tissue_in(
    rgb: NDArray[np.uint8], rule: TissueRule, *, mpp: float | None = None
) -> tuple[NDArray[np.bool_], float]:
    """Find tissue in one image.

    Parameters
    ----------
    rgb : uint8 [h, w, 3]
    rule : TissueRule
    mpp : float, optional
        Microns per pixel of `rgb`; the rule's `mask_mpp` by default.

    Returns
    -------
    mask : bool [h, w]
    threshold : float, HSV saturation, 0 to 1
    """
    mask, threshold, _ = _find(rgb, rule, rule.mask_mpp if mpp is None else mpp)
    return mask, threshold


def _find(rgb: NDArray[np.uint8], rule: TissueRule, mpp: float) -> tuple[NDArray[np.bool_], float, FaintTissue]:
    """Mask, threshold, and what lies below it (see find_tissue_in)."""
    sigma = rule.blur_um / mpp
    gains = _white_balance(rgb)
    halo = int(4 * sigma + 0.5)  # how far the filter reaches: the bands' borders do not show
    saturation = np.empty(rgb.shape[:2], np.float32)
    dark = np.empty(rgb.shape[:2], bool)
    stained = np.empty(rgb.shape[:2], bool)
    hues = np.zeros(rgb.shape[:2], np.uint8)
    for first in range(0, len(rgb), BAND_ROWS):  # whole-slide temporaries would be tens of MB each
        rows = slice(first, first + BAND_ROWS)
        above = max(0, first - halo)
        red, green, blue = (
            ndimage.gaussian_filter(part * gain, sigma)[first - above :][:BAND_ROWS]
            for part, gain in zip(
                np.moveaxis(rgb[above : first + BAND_ROWS + halo].astype(np.float32), 2, 0), gains, strict=True
            )
        )
        top = np.maximum(np.maximum(red, green), blue)
        low = np.minimum(np.minimum(red, green), blue)
        saturation[rows] = (top - low) / np.maximum(top, 1)
        stained[rows] = green == low
        dark[rows] = top < 40  # black borders and dust carry no reliable hue
        if rule.exclude_ink:
            hues[rows] = ink_hues(red, green, blue, saturation[rows])
    ink = find_ink(hues, mpp)
    del hues, red, green, blue
    release_memory()  # here and below: what one step frees would lie beside what the next one takes
    usable = ~(dark | ink)
    threshold = float(np.clip(_otsu(saturation, usable), rule.min_saturation, rule.max_saturation))
    faint = find_faint(
        saturation,
        usable,
        stained,
        threshold=threshold,
        floor=rule.min_saturation,
        object_px=rule.min_object_um / mpp,
        mpp=mpp,
    )
    mask = (usable & (saturation > threshold)) | faint.mask
    del saturation, stained, usable
    release_memory()
    mask = _clean(mask, rule, mpp) & ~(ink | dark)
    return mask, threshold, faint


def _white_balance(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Factors of the three channels, float32 [3], that make the slide's white grey.

    White is the median colour of the brightest pixels; when it is too dark or too coloured to be glass (a slide
    that is tissue from edge to edge), nothing is changed.
    """
    step = max(1, int(np.sqrt(rgb.shape[0] * rgb.shape[1] / 250_000)))
    sample = rgb[::step, ::step].reshape(-1, 3)
    brightness = sample.min(axis=1)
    white = np.median(sample[brightness >= np.percentile(brightness, 99)], axis=0)
    if white.min() < WHITE_MIN or white.max() - white.min() > WHITE_TINT * white.max():
        return np.ones(3, np.float32)
    gains: NDArray[np.float32] = (white.max() / white).astype(np.float32)
    return gains


def _otsu(values: NDArray[np.float32], usable: NDArray[np.bool_]) -> float:
    """Otsu's threshold of the usable values in 0 to 1 (256 bins); 1 where there is nothing to split."""
    counts, edges = np.zeros(256, np.int64), np.linspace(0, 1, 257)
    for first in range(0, len(values), BAND_ROWS):
        rows = slice(first, first + BAND_ROWS)
        counts += np.histogram(values[rows][usable[rows]], bins=256, range=(0.0, 1.0))[0]
    if not counts.any():
        return 1.0
    weight = counts.cumsum()
    centres = (edges[:-1] + edges[1:]) / 2
    mass = (counts * centres).cumsum()
    low, high = weight[:-1], weight[-1] - weight[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = low * high * (mass[:-1] / low - (mass[-1] - mass[:-1]) / high) ** 2
    between = np.nan_to_num(between)
    if between.max() == 0:
        return 1.0
    best = np.flatnonzero(between == between.max())
    return float(edges[1:-1][best].mean())


def _clean(mask: NDArray[np.bool_], rule: TissueRule, mpp: float) -> NDArray[np.bool_]:
    """Close gaps, drop small islands, fill small holes."""
    radius = round(rule.close_um / mpp)
    if radius >= 1:
        padded = dilate(np.pad(mask, radius), radius)
        closed = ~dilate(~padded, radius)
        mask = mask | closed[radius:-radius, radius:-radius]
    mask = drop_small(mask, np.pi * (rule.min_object_um / 2 / mpp) ** 2)
    filled: NDArray[np.bool_] = ~drop_small(~mask, np.pi * (rule.min_hole_um / 2 / mpp) ** 2)
    return filled
