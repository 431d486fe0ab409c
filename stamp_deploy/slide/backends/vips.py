"""libvips: the reader of plain images (stripped TIFF, JPEG, PNG), with or without a pyramid."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import SlideError
from ...system.memory import free_bytes
from ...system.quiet import without_quotes
from ..colour import check_image_colour
from .base import UnknownFormatError, levels_of_sizes
from .remedies import remedy_for

MAX_PIXELS = 1_500_000_000
BYTES_PER_PIXEL = 4
"""Of an image that is decoded into memory: its pixels, and what the decoder holds beside them."""
_RATIO_TOLERANCE = 0.02


class VipsBackend:
    """An image opened by libvips.

    An image that is not tiled is decoded once, on the first read, and kept in memory.

    Raises
    ------
    SlideError
        libvips does not know the format, the file is damaged, or the image is too large to hold.
    """

    name = "pyvips"
    transparent: NDArray[np.bool_] | None = None

    def __init__(self, path: Path, accept: Collection[str] = ()) -> None:
        import openslide  # noqa: F401 - must come before pyvips in one process, or it breaks
        import pyvips

        self._path = path
        self._error: type[Exception] = pyvips.Error
        self._images: dict[int, Any] = {}
        first = self._page(0)
        self.vendor = "generic"
        self.icc = bytes(first.get("icc-profile-data")) if first.get_typeof("icc-profile-data") else b""
        self._check_memory(first)
        self._pages = [0]
        sizes = [(first.width, first.height)]
        alike = 1
        for page in range(1, int(first.get("n-pages")) if first.get_typeof("n-pages") else 1):
            try:
                image = self._page(page)
            except SlideError:
                continue
            if _is_label_or_macro(image):
                continue
            alike += (image.width, image.height, image.bands) == (first.width, first.height, first.bands)
            if _is_reduction(sizes[0], (image.width, image.height)) and image.width < sizes[-1][0]:
                self._pages.append(page)
                sizes.append((image.width, image.height))
        check_image_colour(first, alike, path, accept)
        self.levels = levels_of_sizes(sizes)
        self.properties = {"openslide.vendor": "generic", **_resolution(first)}
        if note := _description(first):
            self.properties["openslide.comment"] = note

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """RGB of a region (see Backend.read)."""
        out = np.full((h, w, 3), 255, np.uint8)
        spec = self.levels[level]
        left, top = round(x / spec.downsample_x), round(y / spec.downsample_y)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + w, spec.width), min(top + h, spec.height)
        if x0 < x1 and y0 < y1:
            try:
                pixels = self._rgb(level).crop(x0, y0, x1 - x0, y1 - y0).numpy()
            except self._error as error:
                self._images.pop(level, None)
                raise SlideError(
                    f"cannot be decoded at ({x}, {y}) of level {level}: {_short(error)}",
                    path=self._path,
                    remedy=remedy_for(str(error)),
                ) from error
            out[y0 - top : y1 - top, x0 - left : x1 - left] = pixels
        return out

    def forget(self) -> None:
        self._images.clear()

    def close(self) -> None:
        self.forget()

    def _page(self, page: int) -> Any:
        import pyvips

        options: dict[str, Any] = {"fail_on": "warning"}
        if page:
            options["page"] = page
        # by descriptor: libvips takes brackets in a name for options, and pyvips wants names in UTF-8
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            what = error.strerror or "input/output error"
            raise SlideError(f"cannot be read: {what}", path=self._path, remedy="check the disk and rights") from error
        try:
            source = pyvips.Source.new_from_descriptor(descriptor)
            return pyvips.Image.new_from_source(source, "", **options)
        except self._error as error:
            raise UnknownFormatError(
                f"is not an image that can be read: {_short(error)}",
                path=self._path,
                remedy="check that the file is complete, or convert it to a tiled pyramidal TIFF",
            ) from error
        finally:
            os.close(descriptor)

    def _check_memory(self, image: Any) -> None:
        """Refuse an image that cannot be held, before any of its tiles is taken for damaged."""
        pixels = image.width * image.height
        needed, free = pixels * BYTES_PER_PIXEL, free_bytes()
        if pixels > MAX_PIXELS or needed > free:
            room = f": {needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free" if needed > free else ""
            raise SlideError(
                f"has {image.width} x {image.height} px in one piece, too many to hold in memory{room}",
                path=self._path,
                remedy="convert it to a tiled pyramidal TIFF",
            )

    def _rgb(self, level: int) -> Any:
        if level not in self._images:
            image = self._page(self._pages[level])
            if image.hasalpha():
                image = image.flatten(background=[255, 255, 255])
            if image.format == "ushort":
                image = (image / 257).cast("uchar")
            image = image.colourspace("srgb").cast("uchar")
            self._images[level] = image.copy_memory()
        return self._images[level]


def _is_label_or_macro(image: Any) -> bool:
    """Whether a page says that it is a picture of the label or of the whole glass, which can name a patient."""
    text = _description(image).lower()
    return "label" in text or "macro" in text


def _description(image: Any) -> str:
    """The TIFF ImageDescription; bytes that are no UTF-8 are replaced. Empty where there is none."""
    import pyvips

    name = "image-description"
    if not image.get_typeof(name):
        return ""
    try:
        return str(image.get(name))
    except UnicodeDecodeError:
        value = pyvips.GValue()
        pyvips.vips_lib.vips_image_get(image.pointer, name.encode(), value.pointer)
        raw = pyvips.vips_lib.vips_value_get_ref_string(value.pointer, pyvips.ffi.NULL)
        return bytes(pyvips.ffi.string(raw)).decode("utf-8", "replace")


def _is_reduction(full: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a page can be a pyramid level: the same aspect as level 0 and at most half as large."""
    x, y = full[0] / size[0], full[1] / size[1]
    return x > 1.5 and abs(x - y) <= _RATIO_TOLERANCE * x + 2 / min(size)


def _resolution(image: Any) -> dict[str, str]:
    """The TIFF resolution that libvips read, as OpenSlide-style properties; its default 1 px/mm is no evidence."""
    unit = image.get("resolution-unit") if image.get_typeof("resolution-unit") else ""
    if not unit or abs(image.xres - 1.0) < 1e-6:
        return {}
    per = 25.4 if unit == "in" else 10.0
    return {
        "tiff.ResolutionUnit": "inch" if unit == "in" else "centimeter",
        "tiff.XResolution": f"{image.xres * per:.9g}",
        "tiff.YResolution": f"{image.yres * per:.9g}",
    }


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else "unknown error"
    return without_quotes(" ".join(part.rsplit("/", 1)[-1] for part in text.split()))
