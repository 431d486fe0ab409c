"""Microns per pixel by ranked evidence. Never guessed: a wrong resolution is a wrong result.

Evidence is ranked: the command line, then the vendor's own tag, then the TIFF resolution (where the file
states a unit). Objective power alone is listed but never turned into microns: scanners of the same power
differ by 10 % and more. Values outside 0.05 to 20 um/px are refused, whoever states them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import MppError
from .units import MICRONS_PER_CM, MICRONS_PER_INCH

MIN_MPP, MAX_MPP = 0.05, 20.0
MAX_ANISOTROPY = 1.10
_SCREEN_DPI = (72.0, 96.0, 300.0)


@dataclass(frozen=True)
class MppFinding:
    """A slide's resolution and how it was found.

    Attributes
    ----------
    mpp_x, mpp_y : float
        Microns per level-0 pixel.
    source : str
        "command-line", "vendor", "dicom" or "tiff-resolution".
    evidence : tuple of str
        All that was looked at, accepted or refused, one line each.
    """

    mpp_x: float
    mpp_y: float
    source: str
    evidence: tuple[str, ...]


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
    found: list[MppFinding] = []
    for source, label, x, y in _candidates(properties):
        verdict = _verdict(x, y)
        evidence.append(f"{label}: {x:g} x {y:g} um/px, {verdict or 'accepted'}")
        if verdict is None:
            found.append(MppFinding(x, y, source, ()))
    power = properties.get("openslide.objective-power") or properties.get("aperio.AppMag")
    evidence.append(f"objective power: {power + 'x, never converted to microns' if power else 'not recorded'}")
    if stated is not None:
        if not (math.isfinite(stated) and MIN_MPP <= stated <= MAX_MPP):
            raise MppError(
                f"--mpp {stated:g} is not a believable resolution", path=path, remedy=f"use {MIN_MPP} to {MAX_MPP:g}"
            )
        evidence.insert(0, f"command line: {stated:g} um/px, accepted")
        return MppFinding(stated, stated, "command-line", tuple(evidence))
    if not found:
        raise MppError(
            f"the microns per pixel are unknown (looked at: {'; '.join(evidence)})",
            path=path,
            remedy="add --mpp with the scanner's value, for example --mpp 0.25",
        )
    best = found[0]
    return MppFinding(best.mpp_x, best.mpp_y, best.source, tuple(evidence))


def _candidates(properties: Mapping[str, str]) -> list[tuple[str, str, float, float]]:
    """(source, label, mpp_x, mpp_y) in order of rank; values that are not numbers become NaN."""
    vendor = properties.get("openslide.vendor", "")
    rows: list[tuple[str, str, float, float]] = []
    if "aperio.MPP" in properties:
        value = _number(properties["aperio.MPP"])
        rows.append(("vendor", "vendor tag aperio.MPP", value, value))
    elif "openslide.mpp-x" in properties and vendor != "generic-tiff":
        x, y = _number(properties["openslide.mpp-x"]), _number(properties.get("openslide.mpp-y", ""))
        rows.append(("dicom" if vendor == "dicom" else "vendor", f"vendor metadata ({vendor})", x, y))
    resolution = _tiff_resolution(properties)
    if resolution is not None:
        rows.append(("tiff-resolution", *resolution))
    return rows


def _tiff_resolution(properties: Mapping[str, str]) -> tuple[str, float, float] | None:
    if "tiff.XResolution" not in properties:
        return None
    unit = properties.get("tiff.ResolutionUnit", "inch")
    per_unit = {"centimeter": MICRONS_PER_CM, "inch": MICRONS_PER_INCH}.get(unit)
    x, y = _number(properties["tiff.XResolution"]), _number(properties.get("tiff.YResolution", ""))
    if per_unit is None or not (x > 0 and y > 0):
        return f"TIFF resolution ({unit})", math.nan, math.nan
    return f"TIFF resolution {x:g} per {unit}", per_unit / x, per_unit / y


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _verdict(x: float, y: float) -> str | None:
    """Why a pair of values is refused, or None."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return "refused: not a length"
    if not (MIN_MPP <= x <= MAX_MPP and MIN_MPP <= y <= MAX_MPP):
        return f"refused: outside {MIN_MPP} to {MAX_MPP:g} um/px"
    if max(x, y) > MAX_ANISOTROPY * min(x, y):
        return "refused: x and y differ by more than 10 %"
    return None
