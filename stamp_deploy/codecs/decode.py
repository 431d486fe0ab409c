"""One stream to RGB pixels. Runs in the helper process: `python -m stamp_deploy.codecs.decode`."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..system.child_process import ChildRefusalError, serve
from .coding import Coding, StreamKind
from .jpeg2000 import decode_jpeg_2000


def decode(data: bytes, kind: StreamKind) -> NDArray[np.uint8]:
    """RGB, uint8 of `kind.shape`.

    Raises
    ------
    ValueError
        The stream is damaged, or holds something else than `kind` says. The libraries raise other errors, too.
    """
    if kind.coding is Coding.JPEG_2000:
        pixels = decode_jpeg_2000(data, kind)
    elif kind.coding.is_plain:
        pixels = _decode_plain(data, kind)
    elif kind.coding is Coding.WEBP:
        pixels = _decode_webp(data, kind)
    else:
        import imagecodecs

        pixels = np.asarray(imagecodecs.jpegxl_decode(data))
    if pixels.shape != kind.shape or pixels.dtype != np.uint8:
        raise ValueError("it holds something else than an RGB picture of a storage tile's size")
    return np.ascontiguousarray(pixels)


def _decode_plain(data: bytes, kind: StreamKind) -> NDArray[np.uint8]:
    wanted = kind.width * kind.height * 3
    if kind.coding is Coding.DEFLATE:
        raw = zlib.decompressobj().decompress(data, wanted)
    else:
        import imagecodecs

        unpack = imagecodecs.lzw_decode if kind.coding is Coding.LZW else imagecodecs.zstd_decode
        raw = bytes(unpack(data, out=wanted))
    if len(raw) != wanted:
        raise ValueError("it ends early")
    pixels = np.frombuffer(raw, np.uint8).reshape(kind.shape)
    return np.cumsum(pixels, axis=1, dtype=np.uint8) if kind.has_differences else pixels


def _decode_webp(data: bytes, kind: StreamKind) -> NDArray[np.uint8]:
    from PIL import Image

    image = Image.open(io.BytesIO(data), formats=["WEBP"])
    if image.size != (kind.width, kind.height) or image.mode != "RGB":  # before anything is decoded
        raise ValueError("it holds something else than an RGB picture of a storage tile's size")
    return np.asarray(image)


def _answer(request: dict[str, Any], payload: bytes) -> bytes:
    kind = StreamKind(**{**request, "coding": Coding(request["coding"])})
    try:
        return decode(payload, kind).tobytes()
    except Exception as error:  # what a library raises on damage is anything
        raise ChildRefusalError(" ".join(str(error).split()) or "it is damaged") from error


if __name__ == "__main__":
    serve(_answer)
