"""libvips: the reader of plain images (stripped TIFF, JPEG, PNG), with or without a pyramid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import SlideError
from ...quiet import without_quotes
from .base import Level

MAX_PIXELS = 1_500_000_000
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

    def __init__(self, path: Path) -> None:
        import openslide  # noqa: F401 - must come before pyvips in one process, or it breaks
        import pyvips

        self._path = path
        self._error: type[Exception] = pyvips.Error
        self._images: dict[int, Any] = {}
        first = self._page(0)
        self.vendor = "generic"
        self._pages = [0]
        sizes = [(first.width, first.height)]
        for page in range(1, int(first.get("n-pages")) if first.get_typeof("n-pages") else 1):
            try:
                image = self._page(page)
            except SlideError:
                continue
            if _is_label_or_macro(image):
                continue
            if _is_reduction(sizes[0], (image.width, image.height)) and image.width < sizes[-1][0]:
                self._pages.append(page)
                sizes.append((image.width, image.height))
        self.levels = tuple(
            Level(i, w, h, sizes[0][0] / w if i else 1.0, sizes[0][1] / h if i else 1.0)
            for i, (w, h) in enumerate(sizes)
        )
        self.properties = {"openslide.vendor": "generic", **_resolution(first)}
        if first.get_typeof("image-description"):
            self.properties["openslide.comment"] = str(first.get("image-description"))

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
                    remedy="copy or export the image again",
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
        try:
            return pyvips.Image.new_from_file(str(self._path), **options)
        except self._error as error:
            raise SlideError(
                f"is not an image that can be read: {_short(error)}",
                path=self._path,
                remedy="check that the file is complete, or convert it to a tiled pyramidal TIFF",
            ) from error

    def _rgb(self, level: int) -> Any:
        if level not in self._images:
            image = self._page(self._pages[level])
            if image.width * image.height > MAX_PIXELS:
                raise SlideError(
                    f"has {image.width} x {image.height} px in one piece, too many to hold in memory",
                    path=self._path,
                    remedy="convert it to a tiled pyramidal TIFF",
                )
            if image.hasalpha():
                image = image.flatten(background=[255, 255, 255])
            if image.format == "ushort":
                image = (image / 257).cast("uchar")
            image = image.colourspace("srgb").cast("uchar")
            self._images[level] = image.copy_memory()
        return self._images[level]


def _is_label_or_macro(image: Any) -> bool:
    """Whether a page says that it is a picture of the label or of the whole glass, which can name a patient."""
    text = str(image.get("image-description")).lower() if image.get_typeof("image-description") else ""
    return "label" in text or "macro" in text


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
