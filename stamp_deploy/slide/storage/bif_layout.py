"""How the storage tiles of a Ventana BIF lie: by its own records in XML.

The file's pages are grids of storage tiles as the camera took them, an area of the glass after the other. Neighbours
overlap a little: what the scanner measured of each pair gives, averaged by its confidence, the advance from tile to
tile, as in OpenSlide. Scanners name a pair from either side (RIGHT or LEFT, UP or DOWN): the overlap is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ...errors import COPY_AGAIN, SlideError
from ..backends import Level
from ..checks import MAX_SIDE
from ..ome import MAX_CHARS
from ..tiff_pages import file_key
from ..tiff_tags import PageText, read_texts
from .bif_check import ContradictionError, check_areas, check_joint, check_levels

ROOT = "iScan"
_ACROSS, _DOWN = ("RIGHT", "LEFT"), ("UP", "DOWN")
MAX_TILES = 10_000_000
MAX_AREAS = 1_000


@dataclass(frozen=True)
class Area:
    """A scanned area.

    Attributes
    ----------
    column, row, across, down : int
        Its part of the grid of storage tiles.
    x, y : int
        Where it begins on the slide, pixels of level 0.
    """

    column: int
    row: int
    across: int
    down: int
    x: int
    y: int


@dataclass(frozen=True)
class BifLayout:
    """Where the storage tiles lie.

    Attributes
    ----------
    areas : tuple of Area
    tile_width, tile_height : int
        Of a storage tile, pixels.
    advance_x, advance_y : float
        Pixels of level 0 from one storage tile to the next.
    pages : tuple of (int, float)
        Of each level the number of its directory and its downsample.
    power, mpp : str
        Of the objective; um per pixel. Empty where they are not stated.
    """

    areas: tuple[Area, ...]
    tile_width: int
    tile_height: int
    advance_x: float
    advance_y: float
    pages: tuple[tuple[int, float], ...]
    power: str
    mpp: str

    @property
    def overlaps(self) -> bool:
        """Whether neighbours do not just touch each other."""
        return (self.advance_x, self.advance_y) != (self.tile_width, self.tile_height)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, large enough for all storage tiles, as OpenSlide has them."""
        width = max(area.x + (area.across - 1) * self.advance_x for area in self.areas) + self.tile_width
        height = max(area.y + (area.down - 1) * self.advance_y for area in self.areas) + self.tile_height
        return tuple(
            Level(number, max(1, math.ceil(width / scale)), max(1, math.ceil(height / scale)), scale, scale)
            for number, (_, scale) in enumerate(self.pages)
        )

    @property
    def properties(self) -> dict[str, str]:
        """OpenSlide-style."""
        found = {"openslide.vendor": "ventana", "openslide.objective-power": self.power}
        found.update({"openslide.mpp-x": self.mpp, "openslide.mpp-y": self.mpp})
        return {name: value for name, value in found.items() if value}


def read_bif(path: Path) -> BifLayout | str:
    """The layout, or why it is no BIF that can be read here.

    Raises
    ------
    SlideError
        The file is not a TIFF, or what it says of its tiles is damaged.
    """
    return _read_bif(path, file_key(path))


@lru_cache(maxsize=4)
def _read_bif(path: Path, key: tuple[int, ...]) -> BifLayout | str:
    """Cached by the file's identity: the check before OpenSlide opens it and the provider ask for the same."""
    texts = read_texts(path)
    if not texts or ROOT.encode() not in texts[0].xml:
        return "it is no Ventana BIF"
    try:
        return _read(texts)
    except (ParseError, DefusedXmlException, ValueError, TypeError, ArithmeticError) as error:
        why = f": {error}" if isinstance(error, ContradictionError) else ""
        raise SlideError(
            f"what it says of its scanned areas and storage tiles is damaged{why}",
            path=path,
            remedy=COPY_AGAIN,
        ) from error


def _read(texts: tuple[PageText, ...]) -> BifLayout | str:
    scan = _parse(texts[0].xml)
    scan = scan if scan.tag == ROOT else _child(scan, ROOT)
    if int(scan.get("Z-layers", "1")) != 1:
        return f"it holds {scan.get('Z-layers')} focal planes"
    pages = _levels(texts)
    first = pages[0][0]
    downsamples = [pages[0][1] / power for _, power in pages]
    check_levels([page.size_px for page, _ in pages], downsamples, first.tile_px)
    if not first.xml:
        return "it says nothing of its scanned areas"
    width, height = first.tile_px
    encoded = _parse(first.xml)
    infos = encoded.findall("SlideStitchInfo/ImageInfo")
    origins = list(_child(encoded, "AoiOrigin"))
    if len(infos) != len(origins) or not 0 < len(infos) <= MAX_AREAS:
        raise ContradictionError("areas and origins differ in number")
    scanned = [(i, o) for i, o in zip(infos, origins, strict=True) if _int(i, "AOIScanned")]
    areas = [_area(info, origin, width, height) for info, origin in scanned]
    if not areas:
        raise ContradictionError("no area was scanned")
    if sum(area.across * area.down for area in areas) > MAX_TILES:
        raise ContradictionError("more storage tiles than any slide has")
    check_areas(areas, first.size_px, first.tile_px)
    joints = []
    for area, (info, _) in zip(areas, scanned, strict=True):
        joints += [_joint(joint, area) for joint in info.findall("TileJointInfo")]
    advance_x = width - _mean_overlap(joints, _ACROSS, "OverlapX", width)
    advance_y = height - _mean_overlap(joints, _DOWN, "OverlapY", height)
    return BifLayout(
        _from_the_top(areas, advance_y, height),
        width,
        height,
        advance_x,
        advance_y,
        tuple((page.directory, downsample) for (page, _), downsample in zip(pages, downsamples, strict=True)),
        _number(scan.get("Magnification")),
        _number(scan.get("ScanRes")),
    )


def _levels(texts: Iterable[PageText]) -> list[tuple[PageText, float]]:
    """The pages that say that they are levels, with their magnifications, finest first."""
    found: list[tuple[PageText, float]] = []
    for page in texts:
        words = dict(word.split("=", 1) for word in page.description.split() if "=" in word)
        if "level" not in words:
            continue
        power = float(words.get("mag", ""))
        if int(words["level"]) != len(found) or not 0 < power < math.inf or page.tile_px == (0, 0):
            raise ContradictionError("its levels are out of order")
        if found and (power >= found[-1][1] or page.tile_px != found[0][0].tile_px):
            raise ContradictionError("its levels do not fit together")
        found.append((page, power))
    if not found:
        raise ContradictionError("it has no levels")
    return found


def _area(info: Element, origin: Element, width: int, height: int) -> Area:
    """An area, its y as the file has it."""
    x, y, across, down = (
        _int(origin, "OriginX"), _int(origin, "OriginY"), _int(info, "NumCols"), _int(info, "NumRows"),
    )  # fmt: skip
    if (_int(info, "Width"), _int(info, "Height")) != (width, height) or x % width or y % height:
        raise ContradictionError("an area does not lie on the grid of storage tiles")
    if min(x, y) < 0 or not (0 < across <= MAX_TILES and 0 < down <= MAX_TILES):
        raise ContradictionError("an area has no size")
    left, bottom = _float(info, "Pos-X"), _float(info, "Pos-Y")
    if not (0 <= left <= MAX_SIDE and -MAX_SIDE <= bottom <= MAX_SIDE):
        raise ContradictionError("an area lies off the glass")
    return Area(x // width, y // height, across, down, int(left), int(bottom))


def _from_the_top(areas: Iterable[Area], advance_y: float, tile_height: int) -> tuple[Area, ...]:
    """The file counts y upwards, from somewhere below, to the lower edge of an area."""
    areas = tuple(areas)
    heights = [int((area.down - 1) * advance_y + tile_height) for area in areas]
    top = max(0, *(area.y + height for area, height in zip(areas, heights, strict=True)))
    return tuple(replace(area, y=top - area.y - height) for area, height in zip(areas, heights, strict=True))


def _joint(joint: Element, area: Area) -> Element:
    """A joint that joins neighbours in its direction."""
    direction = joint.get("Direction")
    if direction not in _ACROSS + _DOWN:
        raise ContradictionError("a joint has no direction")
    check_joint(area, _int(joint, "Tile1"), _int(joint, "Tile2"), is_across=direction in _ACROSS)
    return joint


def _mean_overlap(joints: Iterable[Element], directions: tuple[str, str], name: str, side: int) -> float:
    total, weight = 0.0, 0
    for joint in joints:
        if joint.get("Direction") in directions:
            confidence = _int(joint, "Confidence")
            total, weight = total + confidence * _float(joint, name), weight + confidence
    mean = total / weight if weight else 0.0
    if weight < 0 or not -side < mean < side / 2:
        raise ContradictionError("storage tiles overlap by more than half")
    return mean


def _parse(xml: bytes) -> Element:
    if len(xml) > MAX_CHARS:
        raise ContradictionError("too long")
    root: Element = fromstring(xml.rstrip(b"\0 \r\n\t").decode("utf-8", "replace"), forbid_dtd=True)
    return root


def _child(parent: Element, name: str) -> Element:
    child = parent.find(name)
    if child is None:
        raise ContradictionError(f"no {name}")
    return child


def _int(element: Element, name: str) -> int:
    return int(element.get(name, ""))


def _float(element: Element, name: str) -> float:
    value = float(element.get(name, ""))
    if not math.isfinite(value):
        raise ContradictionError(f"{name} is no number")
    return value


def _number(text: str | None) -> str:
    try:
        return f"{float(text or ''):.15g}"
    except ValueError:
        return ""
