"""Microns per pixel by ranked evidence. Never guessed: a wrong resolution is a wrong result.

Evidence is ranked: the command line, then the vendor's own tag or DICOM attribute, then the physical size in
OME-XML, then the TIFF resolution (where the file states a unit). Objective power alone is listed but never
turned into microns: scanners of the same power differ by 10 % and more. Values outside 0.05 to 20 um/px are
refused, whoever states them. Only numbers of the file come out, never its text. docs/slide.md lists the tags.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import MppError
from ..units import MAX_MPP, MICRONS_PER_CM, MICRONS_PER_INCH, MIN_MPP, believable_mpp
from .numbers import magnification, number
from .ome import pixel_size

MAX_ANISOTROPY = 1.10
"""Largest ratio of mpp_x to mpp_y, and of two statements about one slide that still agree."""


OVERVIEW_MPP = 200.0
"""A scanner that states up to this, and more than a slide can have, speaks of an overview of the whole glass."""


@dataclass(frozen=True)
class MppFinding:
    """A slide's resolution and how it was found.

    Attributes
    ----------
    mpp_x, mpp_y : float
        Microns per level-0 pixel.
    source : str
        "command-line", "vendor", "dicom", "ome-xml" or "tiff-resolution".
    evidence : tuple of str
        All that was looked at, accepted or refused, one line each.
    conflict : str
        What disagrees by more than 10 % with the value taken; empty where nothing does.
    """

    mpp_x: float
    mpp_y: float
    source: str
    evidence: tuple[str, ...]
    conflict: str = ""


def find_mpp(properties: Mapping[str, str], *, stated: float | None, path: Path) -> MppFinding:
    """Decide a slide's resolution.

    Parameters
    ----------
    properties : mapping
        OpenSlide-style properties: openslide.mpp-x/-y, aperio.MPP, tiff.XResolution and the like.
    stated : float, optional
        The user's --mpp, which outranks the file.
    path : Path
        For the message.

    Raises
    ------
    MppError
        There is no believable evidence, or x and y differ by more than 10 %.
    """
    evidence: list[str] = []
    overview = False
    found: list[tuple[str, str, float, float]] = []
    for source, label, x, y in _candidates(properties):
        if source == "":
            evidence.append(f"{label}: not recorded")
            continue
        verdict = _verdict(x, y)
        value = f"{x:g} x {y:g} um/px, " if math.isfinite(x) and math.isfinite(y) else ""
        evidence.append(f"{label}: {value}{verdict or 'accepted'}")
        if verdict is None:
            found.append((source, label, x, y))
        elif source != "tiff-resolution" and MAX_MPP < x <= OVERVIEW_MPP:
            overview = True
    evidence.append(f"objective power: {_power(properties)}")
    if stated is not None:
        if not believable_mpp(stated):
            raise MppError(
                f"--mpp {stated:g} is not a believable resolution", path=path, remedy=f"use {MIN_MPP} to {MAX_MPP:g}"
            )
        evidence.insert(0, f"command line: {stated:g} um/px, accepted")
        found.insert(0, ("command-line", "--mpp", stated, stated))
    if not found:
        raise MppError(
            f"the microns per pixel are unknown (looked at: {'; '.join(evidence)})",
            path=path,
            remedy="it is an overview of a slide, not the slide: name the file of its full resolution"
            if overview
            else "add --mpp with the scanner's value, for example --mpp 0.25",
        )
    source, label, x, y = found[0]
    return MppFinding(x, y, source, tuple(evidence), _conflict(label, x, found[1:]))


def _conflict(label: str, mpp: float, others: list[tuple[str, str, float, float]]) -> str:
    for _, other, x, _ in others:
        if max(x, mpp) > MAX_ANISOTROPY * min(x, mpp):
            return f"the resolution is {mpp:g} um/px by {label}, but {x:g} by {other}"
    return ""


def _power(properties: Mapping[str, str]) -> str:
    said = [properties[key] for key in ("openslide.objective-power", "aperio.AppMag") if properties.get(key)]
    if not said:
        return "not recorded"
    power = next((value for value in map(magnification, said) if math.isfinite(value)), math.nan)
    return f"{power:g}x, never converted to microns" if math.isfinite(power) else "not a number"


def _candidates(properties: Mapping[str, str]) -> list[tuple[str, str, float, float]]:
    """(source, label, mpp_x, mpp_y) in order of rank; no source: not recorded; NaN: not a number."""
    vendor = properties.get("openslide.vendor", "")
    rows: list[tuple[str, str, float, float]] = []
    if "aperio.MPP" in properties:
        value = number(properties["aperio.MPP"])
        rows.append(("vendor", "vendor tag aperio.MPP", value, value))
    # what OpenSlide made of the vendor's fields; of a plain TIFF it is the resolution
    own = vendor not in ("generic-tiff", "generic") and "openslide.mpp-x" in properties
    if own and not (rows and math.isfinite(rows[0][2])):
        x, y = number(properties["openslide.mpp-x"]), number(properties.get("openslide.mpp-y", ""))
        rows.append(("dicom" if vendor == "dicom" else "vendor", f"vendor metadata ({vendor})", x, y))
    if not rows:
        rows.append(("", "vendor tag", math.nan, math.nan))
    size = pixel_size(properties.get("openslide.comment", ""))
    if size is not None:
        rows.append(("ome-xml", "OME-XML PhysicalSize", *size))
    if vendor != "dicom":
        rows.append(_tiff_resolution(properties))
    return rows


def _tiff_resolution(properties: Mapping[str, str]) -> tuple[str, str, float, float]:
    if "tiff.XResolution" not in properties:
        return "", "TIFF resolution", math.nan, math.nan
    stated = properties.get("tiff.ResolutionUnit", "inch")
    unit = stated if stated in ("inch", "centimeter", "none") else "unknown"
    per_unit = {"centimeter": MICRONS_PER_CM, "inch": MICRONS_PER_INCH}.get(unit)
    x, y = number(properties["tiff.XResolution"]), number(properties.get("tiff.YResolution", ""))
    if per_unit is None or not (x > 0 and y > 0):
        return "tiff-resolution", f"TIFF resolution {x:g} per unit {unit!r}", math.nan, math.nan
    return "tiff-resolution", f"TIFF resolution {x:g} per {unit}", per_unit / x, per_unit / y


def _verdict(x: float, y: float) -> str | None:
    """Why a pair of values is refused, or None."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return "refused: not a length"
    if not (believable_mpp(x) and believable_mpp(y)):
        return f"refused: outside {MIN_MPP} to {MAX_MPP:g} um/px"
    if max(x, y) > MAX_ANISOTROPY * min(x, y):
        return "refused: x and y differ by more than 10 %"
    return None
