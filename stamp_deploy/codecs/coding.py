"""How the streams of storage tiles are coded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Any


class Coding(StrEnum):
    """What the streams of a grid of storage tiles are. The compiled tiler decodes JPEG, `Decoder` the others."""

    JPEG = "JPEG"
    JPEG_2000 = "JPEG 2000"
    JPEG_XL = "JPEG XL"
    WEBP = "WebP"
    DEFLATE = "deflate"
    LZW = "LZW"
    ZSTD = "zstd"

    @property
    def is_reducible(self) -> bool:
        """Whether a stream decodes at 1/2, 1/4, 1/8 of its size without what is finer."""
        return self in (Coding.JPEG, Coding.JPEG_2000)

    @property
    def is_plain(self) -> bool:
        """Whether a stream is a compressed run of RGB pixels, and nothing that knows of pictures."""
        return self in (Coding.DEFLATE, Coding.LZW, Coding.ZSTD)

    @property
    def why_not(self) -> str | None:
        """Why streams of it cannot be decoded here; None where they can."""
        if self in (Coding.JPEG_XL, Coding.LZW, Coding.ZSTD) and find_spec("imagecodecs") is None:
            return f"its tiles are coded as {self}, which needs imagecodecs: pip install 'stamp-deploy[codecs]'"
        return None


@dataclass(frozen=True)
class StreamKind:
    """What a stream is, and how it is wanted.

    Attributes
    ----------
    coding : Coding
    width, height : int
        Of a storage tile, pixels.
    is_ycbcr : bool
        Whether the file says that the stream holds YCbCr. JPEG 2000 that transforms its colours itself holds RGB.
    has_differences : bool
        Whether each pixel is kept as its difference from the one before (TIFF's predictor 2).
    scale : int
        Denominator: 1, or 2, 4, 8 where the coding is reducible.
    """

    coding: Coding
    width: int
    height: int
    is_ycbcr: bool = False
    has_differences: bool = False
    scale: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of the decoded stream; the scale divides the storage tile."""
        return self.height // self.scale, self.width // self.scale, 3

    def to_json(self) -> dict[str, Any]:
        """JSON values that `StreamKind(**values)` takes."""
        return asdict(self)
