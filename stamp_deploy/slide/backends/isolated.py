"""Regions read by OpenSlide in a child process: a decoder that crashes takes a region with it, not the run.

JPEG 2000 goes this way where its regions are read by OpenSlide: the decoder that readers share has open faults that a
crafted file can use.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import COPY_AGAIN, SlideError
from ...system.child_process import ChildLostError, ChildProcess, ChildRefusalError, serve
from ..dicom import JPEG_2000, volume_instances
from ..tiff_pages import tiff_pages

JPEG_2000_TIFF = (33003, 33004, 33005, 34712)


def holds_jpeg_2000(path: Path, vendor: str) -> bool:
    """Whether a slide's tiles are coded as JPEG 2000, as far as its file says, or may be for all that it says."""
    if vendor == "dicom":
        instances = volume_instances(path)
        return not instances or any(instance.transfer_syntax in JPEG_2000 for instance in instances)
    try:
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            return any(int(getattr(page, "compression", 0)) in JPEG_2000_TIFF for page in tiff_pages(tiff))
    except Exception:
        return False  # not a TIFF that tifffile reads, and so not one of these


class ChildReader:
    """Regions read by OpenSlide in a child process.

    `read` is as Backend.read but gives RGBA as OpenSlide does, uint8 [h, w, 4]. One thread at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._child = ChildProcess(__name__, str(path))

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        try:
            pixels = self._child.ask({"level": level, "x": x, "y": y, "w": w, "h": h}, b"", w * h * 4)
        except (ChildRefusalError, ChildLostError) as error:
            raise SlideError(
                f"cannot be decoded at ({x}, {y}) of level {level}: {error}",
                path=self._path,
                remedy=COPY_AGAIN,
            ) from error
        return np.frombuffer(pixels, np.uint8).reshape(h, w, 4)

    def close(self) -> None:
        """End the child."""
        self._child.close()


class _Regions:
    """The child's side: an open slide; its errors go back as text, anything worse ends the child."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slide: Any = None

    def answer(self, wanted: dict[str, Any], payload: bytes) -> bytes:
        import openslide

        try:
            if self._slide is None:
                self._slide = openslide.OpenSlide(self._path)
            region = self._slide.read_region((wanted["x"], wanted["y"]), wanted["level"], (wanted["w"], wanted["h"]))
            pixels: bytes = region.tobytes()
            return pixels
        except openslide.OpenSlideError as error:
            if self._slide is not None:
                self._slide.close()
            self._slide = None  # its errors latch
            text = str(error).replace(str(self._path), self._path.name).replace(str(self._path.parent), "")
            raise ChildRefusalError(text) from error


if __name__ == "__main__":
    serve(_Regions(Path(sys.argv[1])).answer)
