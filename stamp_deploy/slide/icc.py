"""A slide's ICC profile: what its scanner's colours mean. Recorded always, applied where that is asked for."""

from __future__ import annotations

import io
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ICC_USES
from ..errors import SlideError
from .backends import Backend
from .tiff_tags import read_icc_tag

_NONE, _SRGB = ICC_USES
MAX_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class Colours:
    """What a slide's colours are, and what is done with them.

    Attributes
    ----------
    profile_sha256 : str
        Of its ICC profile; empty where it holds none.
    to_srgb : SrgbTransform, optional
        What is applied to tiles; None where nothing is.
    notes : tuple of str
        What a reader of the result should know.
    """

    profile_sha256: str
    to_srgb: SrgbTransform | None
    notes: tuple[str, ...]

    @property
    def properties(self) -> dict[str, str]:
        """What stands in the result; nothing where there is no profile and none was asked for."""
        if not self.profile_sha256:
            return {}
        return {
            "icc.profile-sha256": self.profile_sha256,
            "icc.conversion": _NONE if self.to_srgb is None else _SRGB,
        }


class SrgbTransform:
    """Converts RGB of a profile to sRGB, by Little CMS, relative colorimetric.

    Raises
    ------
    ValueError
        The profile is damaged, or of no RGB.
    """

    def __init__(self, profile: bytes) -> None:
        from PIL import ImageCms

        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            self._transform: Any = ImageCms.buildTransform(
                source, ImageCms.createProfile("sRGB"), "RGB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
            )
        except (ImageCms.PyCMSError, OSError) as error:
            raise ValueError("its ICC profile is damaged, or of no RGB") from error

    def convert(self, tiles: NDArray[np.uint8]) -> None:
        """Convert tiles, uint8 [N, T, T, 3], in place."""
        from PIL import Image

        for tile in tiles:
            tile[:] = np.asarray(self._transform.apply(Image.fromarray(tile)))


def find_colours(path: Path, backend: Backend, conversion: str | None) -> Colours:
    """The profile of a slide, and its conversion where `conversion` is "srgb".

    Raises
    ------
    SlideError
        The conversion is asked for, and the profile is damaged.
    """
    given = getattr(backend, "icc", None)
    profile = given if given is not None else read_icc_tag(path)
    if not profile or len(profile) > MAX_BYTES:
        asked = conversion == _SRGB
        return Colours("", None, ("it holds no ICC profile: its colours are taken for sRGB",) if asked else ())
    digest = sha256(profile).hexdigest()
    if conversion != _SRGB:
        return Colours(digest, None, ())
    try:
        return Colours(digest, SrgbTransform(profile), ())
    except ValueError as error:
        raise SlideError(
            str(error), path=path, remedy="export the slide again, or leave its colours: --icc none"
        ) from error
