"""The pixel size in OME-XML, read by a hardened parser: no entities, no DTD, a limit on the size."""

from __future__ import annotations

import io
import math
import re
import unicodedata
from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from .numbers import number

MAX_CHARS = 1 << 24
_MICRONS = {
    "m": 1e6,
    "dm": 1e5,
    "cm": 1e4,
    "mm": 1e3,
    "\u03bcm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "\u00e5": 1e-4,
    "in": 25_400.0,
    "inch": 25_400.0,
}
"""Microns per unit, by the unit in NFKC and lower case: the micro sign and the Greek mu are one."""
_DECLARATION = re.compile(r"<\?xml[^>]{0,200}\?>")
_ROOT = re.compile(r"<([\w.-]{1,40}:)?OME[\s>]")
_REPLACED_MU = re.compile("\ufffd{1,2}m")
"""What decoding leaves of a micro sign in Latin-1 or another encoding: no other unit has a letter beyond ASCII."""


def pixel_size(text: str) -> tuple[float, float] | None:
    """PhysicalSizeX and -Y of the first image, microns; None where the text is not OME-XML.

    Only the start of the document is parsed, up to the first Pixels element.

    Returns
    -------
    x, y : float
        NaN where a size, its unit or the document is unusable.
    """
    body = text.strip("\ufeff \t\r\n")
    if declared := _DECLARATION.match(body):
        body = body[declared.end() :].lstrip()
    while body.startswith("<!--"):
        body = body.partition("-->")[2].lstrip()
    if not _ROOT.match(body):
        return None
    if len(body) > MAX_CHARS:
        return math.nan, math.nan
    try:
        pixels = next((e for e in _elements(body) if _local(e.tag) == "Pixels"), None)
    except (ParseError, DefusedXmlException, ValueError):
        return math.nan, math.nan
    if pixels is None:
        return None
    said = {_local(key): value for key, value in pixels.attrib.items()}
    if "PhysicalSizeX" not in said:
        return None
    x = _microns(said["PhysicalSizeX"], said.get("PhysicalSizeXUnit"))
    if "PhysicalSizeY" not in said:
        return x, x
    return x, _microns(said["PhysicalSizeY"], said.get("PhysicalSizeYUnit"))


def _elements(body: str) -> Iterator[Element]:
    # the declaration is gone: it may name an encoding that the text no longer has
    events = iterparse(io.BytesIO(body.encode("utf-8", "replace")), events=("start",), forbid_dtd=True)
    return (element for _, element in events)


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _microns(size: str, unit: str | None) -> float:
    if unit is None:
        return number(size)
    plain = unicodedata.normalize("NFKC", unit).strip().lower()
    if _REPLACED_MU.fullmatch(plain):
        return number(size)
    return number(size) * _MICRONS.get(plain, math.nan)
