"""Whether a file's pixels are what the models were trained on: a brightfield picture in 8-bit red, green and blue.

Readers turn nearly anything into RGB: grey is copied three times, 16 bits are cut to 8, the first of three grey pages
stands for all. The scores would be of a picture that nobody stained. So what is no RGB is refused with the reason,
unless the bundle says that it was trained on it (`trained_on` of its pfm record).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SlideError
from .backends import Level
from .tiff_pages import tiff_pages

KINDS = ("grey", "fluorescence", "16-bit", "palette", "cmyk")
"""What a bundle can say that it was trained on, beside RGB."""

_GREY, _PALETTE, _CMYK, _LAB = (0, 1), 3, 5, (8, 9, 10)
_ALPHA = (1, 2)
_FLOAT = 3
DARK, DIM = 40, 110
"""Fluorescence: the median pixel is darker than DARK, and hardly any has all three colours above DIM."""


def check_tiff_colour(path: Path, levels: Sequence[Level], accept: Collection[str]) -> None:
    """Refuse a TIFF whose full-resolution page is no 8-bit RGB. Other files, and pages not found, pass.

    Raises
    ------
    SlideError
        With what the pixels are.
    """
    import tifffile

    full = levels[0]
    try:
        with tifffile.TiffFile(path) as tiff:
            if tiff.is_ndpi or tiff.is_scn:  # JPEG in colour by definition, and slow to walk
                return
            pages = list(tiff_pages(tiff))
            same = [page for page in pages if (page.imagewidth, page.imagelength) == (full.width, full.height)]
            found = _what_tiff_pages_are(same) if same else None
    except Exception:
        return  # not a TIFF, or one that tifffile cannot walk: the reader that opened it says what is wrong
    _refuse(found, path, accept)


def _what_tiff_pages_are(same: Sequence[Any]) -> tuple[str, str] | None:
    """(kind, what) of pages of the slide's full size, the first of which would be read; None for RGB."""
    page = next((page for page in same if page.is_tiled), same[0])
    samples, photometric = int(page.samplesperpixel), int(page.photometric)
    colours = samples - sum(1 for extra in page.extrasamples if int(extra) in _ALPHA)
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    if int(page.sampleformat or 1) == _FLOAT:
        return "float", "keeps its pixels as floating-point numbers, whose range nobody states"
    if photometric == _PALETTE:
        return "palette", "keeps its colours in a palette"
    if photometric == _CMYK:
        return "cmyk", "is coded for a printer (CMYK)"
    if photometric in _LAB:
        return "lab", "is coded in CIE L*a*b*"
    if colours == 1 or photometric in _GREY:
        alike = sum(1 for other in same if int(other.samplesperpixel) == 1)
        if max(alike, colours) > 1:
            return (
                "channels",
                f"keeps its colour as {max(alike, colours)} grey channels, and would be read as one of them",
            )
        return "grey", "is a grey picture"
    if colours != 3:
        return "channels", f"has {colours} channels, not red, green and blue"
    return ("16-bit", "has more than 8 bits a colour, whose range nobody states") if bits > 8 else None


def check_image_colour(image: Any, alike: int, path: Path, accept: Collection[str]) -> None:
    """The same for an image as libvips sees it; `alike` is its number of pages of the same size.

    Raises
    ------
    SlideError
        With what the pixels are.
    """
    colours = image.bands - (1 if image.hasalpha() else 0)
    found: tuple[str, str] | None = None
    if image.format in ("float", "double", "complex", "dpcomplex"):
        found = "float", "keeps its pixels as floating-point numbers, whose range nobody states"
    elif image.get_typeof("palette") and image.get("palette"):
        found = "palette", "keeps its colours in a palette"
    elif image.interpretation == "cmyk":
        found = "cmyk", "is coded for a printer (CMYK)"
    elif colours == 1 and alike > 1:
        found = "channels", f"keeps its colour as {alike} grey pages, and would be read as one of them"
    elif colours == 1:
        found = "grey", "is a grey picture"
    elif colours != 3:
        found = "channels", f"has {colours} channels, not red, green and blue"
    elif image.format != "uchar":
        found = "16-bit", "has more than 8 bits a colour, whose range nobody states"
    _refuse(found, path, accept)


def check_stated_light(properties: Mapping[str, str], path: Path, accept: Collection[str]) -> None:
    """Refuse a slide whose scanner says that it was lit for fluorescence.

    Raises
    ------
    SlideError
        It was.
    """
    said = properties.get("leica.illumination-source", properties.get("dicom.illumination", "")).lower()
    if "fluor" in said:
        _refuse(("fluorescence", "is a fluorescence slide, by its scanner's word"), path, accept)


def check_brightfield(rgb: NDArray[np.uint8], path: Path, accept: Collection[str]) -> None:
    """Refuse an overview that is bright on black, as fluorescence is: light shines through what is stained with H&E.

    Parameters
    ----------
    rgb : uint8 [h, w, 3]
        The whole slide.

    Raises
    ------
    SlideError
        Most of it is black and nothing is near white.
    """
    step = max(1, int(np.sqrt(rgb.shape[0] * rgb.shape[1] / 250_000)))
    sample = rgb[::step, ::step].reshape(-1, 3)
    dark = np.median(sample.max(axis=1)) < DARK
    if dark and np.percentile(sample.min(axis=1), 99) < DIM:
        _refuse(("fluorescence", "is dark with coloured light on it, as fluorescence is"), path, accept)


def _refuse(found: tuple[str, str] | None, path: Path, accept: Iterable[str]) -> None:
    if found is None or found[0] in accept:
        return
    kind, what = found
    if kind == "fluorescence":
        raise SlideError(
            f"{what}: the model was trained on brightfield slides",
            path=path,
            remedy="use a bundle that was trained on such slides, or the slide's brightfield scan",
        )
    raise SlideError(
        f"{what}: the model was trained on 8-bit RGB",
        path=path,
        remedy="export the slide again as 8-bit RGB, all three colours interleaved in one page",
    )
