"""What OME-XML says of a slide, read by a hardened parser: no entities, no DTD, a limit on the size."""

from __future__ import annotations

import io
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from ..errors import SlideError
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


@dataclass(frozen=True)
class OmePixels:
    """What OME-XML says of the picture on a file's first page.

    Attributes
    ----------
    width, height : int or None
        Pixels; None where it does not say.
    microns : (float, float) or None
        Of a pixel in x and y, NaN where the value or its unit is unusable; None where it does not say.
    """

    width: int | None
    height: int | None
    microns: tuple[float, float] | None


_UNUSABLE = OmePixels(None, None, (math.nan, math.nan))


def check_ome(text: str, width: int, height: int, path: Path) -> None:
    """Refuse OME-XML that states another size for the full resolution than the file has: it speaks of another picture.

    Raises
    ------
    SlideError
        It does.
    """
    said = first_pixels(text)
    if said is not None and None not in (said.width, said.height) and (said.width, said.height) != (width, height):
        raise SlideError(
            f"its OME-XML says {said.width} x {said.height} px, and its full resolution has {width} x {height}",
            path=path,
            remedy="export the slide again, with metadata of its own",
        )


def pixel_size(text: str) -> tuple[float, float] | None:
    """PhysicalSizeX and -Y of the picture on the first page, microns; None where the text is not OME-XML.

    Returns
    -------
    x, y : float
        NaN where a size, its unit or the document is unusable, or where no image lies on the first page.
    """
    pixels = first_pixels(text)
    return pixels.microns if pixels is not None else None


def first_pixels(text: str) -> OmePixels | None:
    """What is said of the image on the first page; of the first image where nothing is said of pages.

    None where the text is no OME-XML, or describes no image.
    """
    body = text.strip("\ufeff \t\r\n")
    if declared := _DECLARATION.match(body):
        body = body[declared.end() :].lstrip()
    while body.startswith("<!--"):
        body = body.partition("-->")[2].lstrip()
    if not _ROOT.match(body):
        return None
    if len(body) > MAX_CHARS:
        return _UNUSABLE
    images: list[_Image] = []
    try:
        for image in _images(body, images):
            if image.is_on_first_page:
                return _described(image.attributes)
    except (ParseError, DefusedXmlException, ValueError):
        if not images:
            return _UNUSABLE
    if not images:
        return None
    unplaced = next((image for image in images if not image.has_pages), None)
    return _described(unplaced.attributes) if unplaced is not None else _UNUSABLE


@dataclass
class _Image:
    """A Pixels element, and what its TiffData say of pages."""

    attributes: dict[str, str]
    has_pages: bool = False
    is_on_first_page: bool = False


def _images(body: str, images: list[_Image]) -> Iterator[_Image]:
    """Each image as often as a page of it is named; `images` collects them as they begin."""
    own, elsewhere = "", False
    for event, element in _elements(body):
        name = _local(element.tag)
        if event == "start":
            if name == "OME":
                own = element.get("UUID", "")
            elif name == "Pixels":
                images.append(_Image({_local(key): value for key, value in element.attrib.items()}))
            elif name == "TiffData":
                elsewhere = False
        elif name == "UUID":
            elsewhere = own not in ("", (element.text or "").strip())
        elif name == "TiffData" and images:
            images[-1].has_pages = True
            images[-1].is_on_first_page = not elsewhere and number(element.get("IFD", "0")) == 0
            yield images[-1]


def _described(said: Mapping[str, str]) -> OmePixels:
    width, height = (int(text) if (text := said.get(name, "")).isdecimal() else None for name in ("SizeX", "SizeY"))
    if "PhysicalSizeX" not in said:
        return OmePixels(width, height, None)
    x = _microns(said["PhysicalSizeX"], said.get("PhysicalSizeXUnit"))
    y = _microns(said["PhysicalSizeY"], said.get("PhysicalSizeYUnit")) if "PhysicalSizeY" in said else x
    return OmePixels(width, height, (x, y))


def _elements(body: str) -> Iterator[tuple[str, Element]]:
    # the declaration is gone: it may name an encoding that the text no longer has
    events: Iterator[tuple[str, Element]] = iterparse(
        io.BytesIO(body.encode("utf-8", "replace")), events=("start", "end"), forbid_dtd=True
    )
    return events


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _microns(size: str, unit: str | None) -> float:
    if unit is None:
        return number(size)
    plain = unicodedata.normalize("NFKC", unit).strip().lower()
    if _REPLACED_MU.fullmatch(plain):
        return number(size)
    return number(size) * _MICRONS.get(plain, math.nan)
