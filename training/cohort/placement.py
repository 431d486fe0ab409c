"""The image of a sample: its resolution by all the evidence, and whether the spots can be where they are said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.errors import DataError, MppError, StampError
from stamp_deploy.slide import Slide, open_slide
from stamp_deploy.tissue import TissueMask, TissueRule, find_tissue

from .readers import RawSample

THUMBNAIL_PX = 1600
"""Longest side of the picture on the quality sheet."""

MPP_AGREEMENT = 0.05
"""Relative difference up to which two statements of a resolution count as the same."""
MICRONS_BETTER = 0.2
"""How much larger the share of spots on tissue must be when read as microns, before pixels are doubted."""


def open_image(raw: RawSample, stated: float | None, overrides: bool) -> tuple[Slide, str]:
    """The image at the best known resolution, and how that was found; statements that differ are refused."""
    found: list[tuple[float, str]] = []
    if stated is not None:
        found.append((stated, "stated in the config"))
    if raw.mpp is not None:
        found.append((raw.mpp, raw.mpp_source))
    weak = False
    try:
        with open_slide(raw.image) as probe:
            found.append((float(np.mean(probe.mpp_xy)), f"the image's {probe.mpp.source} metadata"))
            weak = probe.mpp.source == "tiff-resolution"  # editors write any number there
    except MppError as error:
        if not found:
            raise DataError(
                "the microns per pixel are unknown: neither config nor files nor image state them",
                path=raw.image,
                remedy='state mpp, or spot_pitch_um with format = "legacy-st"',
            ) from error
    best, source = found[0]
    for i, (value, other) in enumerate(found[1:], 1):
        agrees = abs(value - best) <= MPP_AGREEMENT * best
        if not agrees and not overrides and not (weak and i == len(found) - 1):
            raise DataError(
                f"the microns per pixel are in doubt: {best:.4g} ({source}), but {value:.4g} ({other})",
                path=raw.image,
                remedy="find out which is right; mpp_overrides = true lets the first one stand",
            )
        source += f"; {'agrees with' if agrees else 'not believed:'} {value:.4g}, {other}"
    slide = open_slide(raw.image, mpp=best)
    try:
        slide.thumbnail(THUMBNAIL_PX)  # which is needed for the sheet, and refuses fluorescence: only pixels show it
    except BaseException:
        slide.close()
        raise
    return slide, source


def spots_inside(raw: RawSample, slide: Slide, policy: str) -> NDArray[np.bool_]:
    """Which spot centres lie inside the image; refuses an image that cannot be the right one."""
    if raw.image_size is not None:
        for have, want, axis in zip((slide.width, slide.height), raw.image_size, ("wide", "high"), strict=True):
            if abs(have - want) > 0.01 * want + 2:
                raise DataError(
                    f"is {have} px {axis}, but the full-resolution image has {want:.0f}",
                    path=slide.path,
                    remedy="name the image that was given to the pipeline, not a reduced copy",
                )
    size = np.array([slide.width, slide.height])
    inside = np.asarray(((raw.centres >= 0) & (raw.centres < size)).all(axis=1))
    outside = int((~inside).sum())
    if outside and policy != "drop":
        x, y = raw.centres[~inside][0]
        raise DataError(
            f"{outside} of {len(inside)} spots lie outside the image of {slide.width} x {slide.height} px (one at "
            f"{x:.0f}, {y:.0f})",
            path=slide.path,
            remedy='name the image that the positions belong to, at full resolution; outside = "drop" leaves spots out',
        )
    return inside


def place_spots(raw: RawSample, slide: Slide) -> RawSample:
    """The sample with its centres in pixels: converted from microns where the config says so.

    Where nothing states the unit, places that lie on tissue far better when read as microns are refused.

    Raises
    ------
    DataError
        The centres seem to be microns.
    """
    as_microns = raw.centres / np.array(slide.mpp_xy)
    if raw.unit == "um":
        return replace(raw, centres=as_microns)
    if raw.unit == "px" or max(abs(m - 1) for m in slide.mpp_xy) < MPP_AGREEMENT:
        return raw
    size = np.array([slide.width, slide.height])
    if not bool(((as_microns >= 0) & (as_microns < size)).all()):
        return raw
    outside = float((~((raw.centres >= 0) & (raw.centres < size)).all(axis=1)).mean())
    cause = f"{outside:.0%} of the spots lie outside the image if their places are pixels, and none if they are microns"
    if not outside:
        try:
            tissue = find_tissue(slide, TissueRule())
        except StampError:
            return raw
        px, um = (_share_on(tissue, centres) for centres in (raw.centres, as_microns))
        if um - px < MICRONS_BETTER:
            return raw
        cause = f"{px:.0%} of the spots lie on tissue if their places are pixels, and {um:.0%} if they are microns"
    raise DataError(
        cause,
        path=slide.path,
        remedy='state the unit of obsm["spatial"]: coordinates = "um" (microns) or coordinates = "px"',
    )


def _share_on(tissue: TissueMask, centres: NDArray[np.float64]) -> float:
    """Share of places (x, y), level-0 pixels, that the mask calls tissue."""
    x = (centres[:, 0] / tissue.scale_x).astype(int).clip(0, tissue.mask.shape[1] - 1)
    y = (centres[:, 1] / tissue.scale_y).astype(int).clip(0, tissue.mask.shape[0] - 1)
    return float(tissue.mask[y, x].mean())
