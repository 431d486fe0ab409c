"""OpenSlide: the reader of scanner formats (SVS, NDPI, MRXS, SCN, BIF, DICOM, tiled TIFF)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import COPY_AGAIN, SlideError
from ...system.quiet import without_quotes
from .base import Level, UnknownFormatError, levels_of_sizes
from .isolated import ChildReader, holds_jpeg_2000
from .remedies import remedy_for

CACHE_BYTES = 32 << 20
"""Of decoded storage tiles, OpenSlide's own default."""
THUMBNAIL_CACHE_BYTES = 12 << 20
"""The same, until the thumbnail has been read: it is read from top to bottom, and needs one row of storage tiles."""


class OpenSlideBackend:
    """A slide opened by OpenSlide. Its errors latch, so the handle is opened again after one.

    JPEG 2000 is decoded in a child process (see isolated.py).

    Raises
    ------
    SlideError
        OpenSlide does not know the format, or the file is damaged.
    """

    name = "openslide"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slide: Any = None
        self._cache_bytes = THUMBNAIL_CACHE_BYTES
        self._child: ChildReader | None = None
        self.transparent: NDArray[np.bool_] | None = None
        slide = self._handle()
        # a name that is not UTF-8 cannot be asked for under the name that is given: its value is left out
        values = ((name, slide.properties.get(name)) for name in slide.properties)
        self.properties = {str(name): str(value) for name, value in values if value is not None}
        self.vendor = self.properties.get("openslide.vendor", "unknown")
        if min(map(min, slide.level_dimensions)) < 1:
            self.close()
            raise SlideError("states a level without pixels", path=path, remedy=COPY_AGAIN)
        self.levels = _levels(slide, self.vendor)
        if holds_jpeg_2000(path, self.vendor):
            self._child = ChildReader(path)

    @staticmethod
    def detect(path: Path) -> str | None:
        """The vendor's format by OpenSlide's name, also of a file that it cannot open; None where it knows none."""
        import openslide

        vendor: str | None = openslide.OpenSlide.detect_format(path)
        return vendor

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """RGB of a region (see Backend.read); what the file leaves out is white."""
        import openslide

        self.transparent = None
        try:
            if self._child is not None:
                rgba = self._child.read(level, x, y, w, h)
            else:
                region = self._handle().read_region((x, y), level, (w, h))
                if region.getchannel("A").getextrema() == (255, 255):
                    return np.array(region.convert("RGB"))
                rgba = np.asarray(region)
        except openslide.OpenSlideError as error:
            self.close()
            raise SlideError(
                f"cannot be decoded at ({x}, {y}) of level {level}: {_short(error, self._path)}",
                path=self._path,
                remedy=remedy_for(str(error)),
            ) from error
        alpha = rgba[..., 3:]
        if alpha.min() == 255:
            return np.ascontiguousarray(rgba[..., :3])
        self.transparent = alpha[..., 0] == 0
        # OpenSlide hands out premultiplied pixels undone by PIL; transparent means outside the scan
        mixed = rgba[..., :3].astype(np.uint16) * alpha + 255 * (255 - alpha.astype(np.uint16))
        opaque: NDArray[np.uint8] = ((mixed + 127) // 255).astype(np.uint8)
        return opaque

    @property
    def icc(self) -> bytes | None:
        """The ICC profile that OpenSlide finds; empty where it finds none, None for a damaged one."""
        try:
            profile = self._handle().color_profile
            return bytes(profile.tobytes()) if profile is not None else b""
        except Exception:  # Pillow's, of a damaged profile
            return None

    def forget(self) -> None:
        """Start with an empty cache of storage tiles; what was read for a thumbnail is not read again."""
        import openslide

        self._cache_bytes = CACHE_BYTES
        if self._slide is not None:
            self._slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
        if self._slide is not None:
            self._slide.close()
            self._slide = None

    def _handle(self) -> Any:
        import openslide

        if self._slide is None:
            try:
                self._slide = openslide.OpenSlide(self._path)
                self._slide.set_cache(openslide.OpenSlideCache(self._cache_bytes))
            except openslide.OpenSlideUnsupportedFormatError as error:
                raise UnknownFormatError(
                    "is not a slide format that OpenSlide reads",
                    path=self._path,
                    remedy="check that the file is complete, or convert it to a tiled pyramidal TIFF",
                ) from error
            except openslide.OpenSlideError as error:
                raise SlideError(
                    f"cannot be opened: {_short(error, self._path)}",
                    path=self._path,
                    remedy=remedy_for(str(error)),
                ) from error
        return self._slide


def _levels(slide: Any, vendor: str) -> tuple[Level, ...]:
    """The levels as they lie over level 0.

    The pages of a Philips slide are padded to whole storage tiles: their sizes say nothing of their downsamples, which
    OpenSlide has from the slide's own record, and what lies beyond level 0 is no picture. The sizes of a Ventana slide
    are rounded up, each by itself: its downsamples are those of its magnifications.
    """
    levels = levels_of_sizes(slide.level_dimensions)
    if vendor == "ventana":
        return tuple(
            Level(level.index, level.width, level.height, downsample, downsample)
            for level, downsample in zip(levels, slide.level_downsamples, strict=True)
        )
    if vendor != "philips":
        return levels
    full, *coarser = levels
    recorded = [full]
    for level, downsample in zip(coarser, slide.level_downsamples[1:], strict=True):
        if downsample >= 1:
            width = min(level.width, math.ceil(full.width / downsample))
            height = min(level.height, math.ceil(full.height / downsample))
            level = Level(level.index, width, height, downsample, downsample)
        recorded.append(level)
    return tuple(recorded)


def _short(error: Exception, path: Path) -> str:
    """The library's message without the folder or what it quotes of the file, which can identify a patient."""
    return without_quotes(str(error).replace(str(path), path.name).replace(str(path.parent), ""))
