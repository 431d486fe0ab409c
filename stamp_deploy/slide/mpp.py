"""Microns per pixel by ranked evidence. Never guessed: a wrong resolution is a wrong result.

Evidence is ranked: the command line, then the vendor's own tag or DICOM attribute, then the physical size in
OME-XML, then the TIFF resolution (where the file states a unit). Objective power alone is listed but never
turned into microns: scanners of the same power differ by 10 % and more. Values outside 0.05 to 20 um/px are
refused, whoever states them. docs/slide.md lists the tags.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import MppError
from ..units import MAX_MPP, MICRONS_PER_CM, MICRONS_PER_INCH, MIN_MPP

MAX_ANISOTROPY = 1.10
"""Largest ratio of mpp_x to mpp_y, and of two statements about one slide that still agree."""
_OME_MICRONS = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3}
_OME_SIZE = re.compile(r'\bPhysicalSize([XY])(Unit)?="([^"]{1,40})"')


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
    power = properties.get("openslide.objective-power") or properties.get("aperio.AppMag")
    evidence.append(f"objective power: {power + 'x, never converted to microns' if power else 'not recorded'}")
    if stated is not None:
        if not (math.isfinite(stated) and MIN_MPP <= stated <= MAX_MPP):
            raise MppError(
                f"--mpp {stated:g} is not a believable resolution", path=path, remedy=f"use {MIN_MPP} to {MAX_MPP:g}"
            )
        evidence.insert(0, f"command line: {stated:g} um/px, accepted")
        found.insert(0, ("command-line", "--mpp", stated, stated))
    if not found:
        raise MppError(
            f"the microns per pixel are unknown (looked at: {'; '.join(evidence)})",
            path=path,
            remedy="add --mpp with the scanner's value, for example --mpp 0.25",
        )
    source, label, x, y = found[0]
    return MppFinding(x, y, source, tuple(evidence), _conflict(label, x, found[1:]))


def _conflict(label: str, mpp: float, others: list[tuple[str, str, float, float]]) -> str:
    for _, other, x, _ in others:
        if max(x, mpp) > MAX_ANISOTROPY * min(x, mpp):
            return f"the resolution is {mpp:g} um/px by {label}, but {x:g} by {other}"
    return ""


def _candidates(properties: Mapping[str, str]) -> list[tuple[str, str, float, float]]:
    """(source, label, mpp_x, mpp_y) in order of rank; no source: not recorded; NaN: not a number."""
    vendor = properties.get("openslide.vendor", "")
    rows: list[tuple[str, str, float, float]] = []
    if "aperio.MPP" in properties:
        value = _number(properties["aperio.MPP"])
        rows.append(("vendor", "vendor tag aperio.MPP", value, value))
    elif "openslide.mpp-x" in properties and vendor not in ("generic-tiff", "generic"):
        x, y = _number(properties["openslide.mpp-x"]), _number(properties.get("openslide.mpp-y", ""))
        rows.append(("dicom" if vendor == "dicom" else "vendor", f"vendor metadata ({vendor})", x, y))
    else:
        rows.append(("", "vendor tag", math.nan, math.nan))
    size = _ome_size(properties.get("openslide.comment", ""))
    if size is not None:
        rows.append(("ome-xml", "OME-XML PhysicalSize", *size))
    if vendor != "dicom":
        rows.append(_tiff_resolution(properties))
    return rows


def _ome_size(text: str) -> tuple[float, float] | None:
    """PhysicalSizeX and -Y of the first image of an OME-XML text, microns; None where it is not OME-XML.

    The attributes are read by pattern, not by an XML parser: no entity of a hostile file is expanded.
    """
    if "<OME" not in text:
        return None
    said: dict[str, str] = {}
    for axis, unit, value in _OME_SIZE.findall(text):
        said.setdefault(axis + unit, value)
    if "X" not in said:
        return None
    sizes = [
        _number(said.get(axis, said["X"])) * _OME_MICRONS.get(said.get(f"{axis}Unit", "µm"), math.nan) for axis in "XY"
    ]
    return sizes[0], sizes[1]


def _tiff_resolution(properties: Mapping[str, str]) -> tuple[str, str, float, float]:
    if "tiff.XResolution" not in properties:
        return "", "TIFF resolution", math.nan, math.nan
    unit = properties.get("tiff.ResolutionUnit", "inch")
    per_unit = {"centimeter": MICRONS_PER_CM, "inch": MICRONS_PER_INCH}.get(unit)
    x, y = _number(properties["tiff.XResolution"]), _number(properties.get("tiff.YResolution", ""))
    if per_unit is None or not (x > 0 and y > 0):
        return "tiff-resolution", f"TIFF resolution {x:g} per unit {unit!r}", math.nan, math.nan
    return "tiff-resolution", f"TIFF resolution {x:g} per {unit}", per_unit / x, per_unit / y


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
