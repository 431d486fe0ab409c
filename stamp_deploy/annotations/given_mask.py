"""A tissue mask that the user gives in place of the one that is found: a picture, or outlines in GeoJSON."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..hashing import sha256_file
from ..system.files import refuse_special
from .geojson import read_annotations
from .raster import rasterise

PICTURES = (".png", ".tif", ".tiff")
OUTLINES = (".geojson", ".json")
MAX_PIXELS = 64 << 20
TISSUE_CLASS = "Tissue"
ASPECT_TOLERANCE = 0.02
"""A mask of another shape belongs to another slide; the rounding of its size to pixels is allowed on top."""


def read_mask(
    path: Path, width: int, height: int, shape: tuple[int, int], corner: tuple[int, int] = (0, 0)
) -> tuple[NDArray[np.bool_], str]:
    """Read a tissue mask.

    Parameters
    ----------
    path : Path
        PNG or TIFF over the whole slide in which tissue is not black; or GeoJSON: the areas of class "Tissue" if there
        are any, else all areas.
    width, height : int
        Size of level 0, pixels.
    shape : (int, int)
        Rows and columns of a mask that is drawn from outlines.
    corner : (int, int)
        What coordinates of a GeoJSON file count from.

    Returns
    -------
    bool [h, w], and the file's SHA-256

    Raises
    ------
    UsageError
        The file is no mask, holds no tissue, or is not of this slide's shape.
    """
    suffix = path.suffix.lower()
    if suffix in OUTLINES:
        found = read_annotations(path, width, height, corner)
        areas = [found.areas[TISSUE_CLASS]] if TISSUE_CLASS in found.areas else list(found.areas.values())
        mask = np.zeros(shape, bool)
        for area in areas:
            mask |= rasterise(area, shape, width / shape[1], height / shape[0])
        sha256 = found.sha256
    elif suffix in PICTURES:
        mask, sha256 = _picture(path), sha256_file(path)
        _check_shape(path, mask.shape, width, height)
    else:
        raise UsageError(
            "a tissue mask is a PNG, a TIFF or a GeoJSON file",
            path=path,
            remedy=f"use {', '.join(PICTURES + OUTLINES)}",
        )
    if not mask.any():
        raise UsageError("the mask holds no tissue", path=path, remedy="draw tissue in any value but 0")
    return mask, sha256


def _picture(path: Path) -> NDArray[np.bool_]:
    from PIL import Image, UnidentifiedImageError

    refuse_special(path, UsageError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's word on large pictures: the size is checked here
            with Image.open(path, formats=("PNG", "TIFF")) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise UsageError(
                        f"a mask of {picture.width} x {picture.height} px is larger than needed",
                        path=path,
                        remedy="save it at about 8 um per pixel",
                    )
                values = np.asarray(picture)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError("it cannot be read as a PNG or TIFF picture", path=path, remedy="save it again") from error
    if values.ndim == 3:
        if values.shape[2] != 3 or (values != values[..., :1]).any():
            raise UsageError("the mask is coloured or see-through", path=path, remedy="save it in black and white")
        values = values[..., 0]
    if len(np.unique(values)) > 2:
        raise UsageError(
            "the mask has more than two values: what is tissue is not clear",
            path=path,
            remedy="save it in black and white, without smoothing and not as JPEG",
        )
    mask: NDArray[np.bool_] = values != 0
    return mask


def _check_shape(path: Path, shape: tuple[int, ...], width: int, height: int) -> None:
    ratio = (width / shape[1]) / (height / shape[0])
    if abs(np.log(ratio)) > ASPECT_TOLERANCE + 1 / min(shape):
        raise UsageError(
            f"a mask of {shape[1]} x {shape[0]} px has not the shape of the slide, {width} x {height} px",
            path=path,
            remedy="give a mask of the whole slide; check that it belongs to this one",
        )
