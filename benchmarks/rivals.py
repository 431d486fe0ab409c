"""Other readers of slides, behind one function: the pixels of tiles, in the order given.

Each takes a slide, the corners of tiles (level-0 pixels) and how many level-0 pixels a tile covers, and gives back how
many tiles it read; it is opened and closed inside, as a pipeline would do for a slide.

All from PyPI; those that are not installed are left out: pip install openslide-python openslide-bin tiffslide pyvips
pyvips-binary fastslide wsidicom; and pip install --no-deps hs2p omegaconf opencv-python-headless, which is all that
hs2p's reader needs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Read = Callable[[Path, NDArray[np.int64], int, int], int]


def openslide_reader(path: Path, corners: NDArray[np.int64], span: int, tile: int) -> int:
    """OpenSlide's read_region, without alpha, resized by PIL."""
    import openslide

    with openslide.OpenSlide(path) as slide:
        for x, y in corners.tolist():
            _fit(slide.read_region((x, y), 0, (span, span)).convert("RGB"), tile)
    return len(corners)


def openslide_level_reader(path: Path, corners: NDArray[np.int64], span: int, tile: int) -> int:
    """OpenSlide's read_region of the coarsest level that is fine enough, resized by PIL where it must be."""
    import openslide

    with openslide.OpenSlide(path) as slide:
        level = slide.get_best_level_for_downsample(span / tile + 1e-3)
        side = round(span / slide.level_downsamples[level])
        for x, y in corners.tolist():
            _fit(slide.read_region((x, y), level, (side, side)).convert("RGB"), tile)
    return len(corners)


def tiffslide_reader(path: Path, corners: NDArray[np.int64], span: int, tile: int) -> int:
    import tiffslide

    with tiffslide.TiffSlide(path) as slide:
        for x, y in corners.tolist():
            _fit(slide.read_region((x, y), 0, (span, span)).convert("RGB"), tile)
    return len(corners)


def pyvips_reader(path: Path, corners: NDArray[np.int64], span: int, tile: int) -> int:
    """Region.fetch of the first page; libvips works on one thread here."""
    import openslide  # noqa: F401 - pyvips first would break it
    import pyvips

    image = pyvips.Image.new_from_file(str(path), access="random")
    region = pyvips.Region.new(image)
    for x, y in corners.tolist():
        w, h = min(span, image.width - x), min(span, image.height - y)
        pixels = np.frombuffer(region.fetch(x, y, w, h), np.uint8).reshape(h, w, image.bands)
        _fit(Image.fromarray(pixels[..., :3]), tile)
    return len(corners)


def fastslide_reader(path: Path, corners: NDArray[np.int64], span: int, tile: int) -> int:
    import fastslide

    slide = fastslide.FastSlide.from_file_path(str(path))
    for x, y in corners.tolist():
        pixels = slide.read_region(location=(x, y), level=0, size=(span, span)).numpy()
        _fit(Image.fromarray(np.ascontiguousarray(pixels[..., :3])), tile)
    return len(corners)


def hs2p_reader(path: Path, corners: NDArray[np.int64], span: int, tile: int) -> int:
    """hs2p's own reader, with the back end that it picks itself (OpenSlide, where cuCIM and libvips do not serve)."""
    from hs2p.wsi.reader import open_slide

    with open_slide(path) as slide:
        for x, y in corners.tolist():
            _fit(Image.fromarray(np.asarray(slide.read_region((x, y), 0, (span, span)))[..., :3]), tile)
    return len(corners)


def wsidicom_reader(path: Path, corners: NDArray[np.int64], span: int, tile: int) -> int:
    """Regions of level 0 (it refuses what reaches beyond), resized by PIL; the series is all files of the folder."""
    from wsidicom import WsiDicom

    with WsiDicom.open(path.parent) as slide:
        size = slide.size
        for x, y in corners.tolist():
            region = min(span, size.width - x), min(span, size.height - y)
            _fit(slide.read_region((x, y), 0, region).convert("RGB"), tile)
    return len(corners)


def _fit(image: Image.Image, tile: int) -> NDArray[np.uint8]:
    return np.asarray(image if image.size == (tile, tile) else image.resize((tile, tile)))


RIVALS: dict[str, tuple[str, Read]] = {
    "OpenSlide": ("openslide", openslide_reader),
    "tiffslide": ("tiffslide", tiffslide_reader),
    "pyvips Region.fetch": ("pyvips", pyvips_reader),
    "fastslide": ("fastslide", fastslide_reader),
    "hs2p": ("hs2p", hs2p_reader),
    "wsidicom": ("wsidicom", wsidicom_reader),
}


DICOM_ALONE = ("wsidicom",)
"""Readers that read nothing else."""


def installed() -> tuple[dict[str, Read], list[str]]:
    """The readers that can be imported here, and the names of those that cannot."""
    here = {name: read for name, (module, read) in RIVALS.items() if importlib.util.find_spec(module) is not None}
    return here, [name for name in RIVALS if name not in here]


def versions() -> dict[str, str]:
    """The release of every reader that can be imported here."""
    by_module = importlib.metadata.packages_distributions()
    return {
        name: ", ".join(f"{d} {importlib.metadata.version(d)}" for d in sorted(set(by_module.get(RIVALS[name][0], []))))
        for name in installed()[0]
    }
