"""JPEG 2000 and its fast form HTJ2K, by OpenJPEG (through Pillow), at full or reduced resolution.

A stream is looked at before it is decoded: OpenJPEG leaves out what a truncated one lacks without a word, and Pillow
guesses what its components are.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .coding import StreamKind
from .colour import ycbcr_to_rgb

_START = b"\xff\x4f\xff\x51"
_SIZ, _COD, _SOT, _EOC = 0xFF51, 0xFF52, 0xFF90, 0xFFD9
_PART_HEAD = 12
"""Bytes of a tile-part's first segment."""


@dataclass(frozen=True)
class Codestream:
    """What a stream says of itself.

    Attributes
    ----------
    width, height, components : int
    is_8_bit : bool
        Whether every component is of 8 bits without a sign.
    is_subsampled : bool
        Whether a component has fewer samples than the picture has pixels.
    transforms_colour : bool
        Whether it turns its components into RGB itself.
    levels : int
        How often its resolution can be halved.
    data : bytes
        The stream without the boxes around it.
    """

    width: int
    height: int
    components: int
    is_8_bit: bool
    is_subsampled: bool
    transforms_colour: bool
    levels: int
    data: bytes


def read_codestream(data: bytes) -> Codestream:
    """The main header of a stream, with or without the boxes of a JP2 file around it.

    Raises
    ------
    ValueError
        It is no stream, or damaged, or a part of it is missing.
    """
    begin = data.find(_START)
    if begin < 0:
        raise ValueError("it is no JPEG 2000 stream")
    data = data[begin:]
    try:
        return _read(data)
    except (struct.error, IndexError):
        raise ValueError("its JPEG 2000 header is damaged") from None


def _read(data: bytes) -> Codestream:
    at, size, style = 2, b"", b""
    while (marker := int.from_bytes(data[at : at + 2], "big")) != _SOT:
        length = struct.unpack_from(">H", data, at + 2)[0]
        if marker < 0xFF00 or length < 2:
            raise ValueError("its JPEG 2000 header is damaged")
        body = data[at + 4 : at + 2 + length]
        size, style = (body, style) if marker == _SIZ else (size, body) if marker == _COD else (size, style)
        at += 2 + length
    _check_parts(data, at)
    x1, y1, x0, y0 = struct.unpack_from(">4L", size, 2)
    count = struct.unpack_from(">H", size, 34)[0]
    parts = [size[36 + 3 * i : 39 + 3 * i] for i in range(count)]
    return Codestream(
        width=x1 - x0,
        height=y1 - y0,
        components=count,
        is_8_bit=all(part[0] == 7 for part in parts),
        is_subsampled=any(part[1:3] != b"\1\1" for part in parts),
        transforms_colour=style[4] != 0,
        levels=style[5],
        data=data,
    )


def _check_parts(data: bytes, at: int) -> None:
    """Walk the tile-parts to the end of the stream.

    Raises
    ------
    ValueError
        One of them reaches beyond the stream, or the end is not there.
    """
    while (marker := int.from_bytes(data[at : at + 2], "big")) == _SOT:
        length = struct.unpack_from(">L", data, at + 6)[0]
        if length == 0:  # to the end of the stream
            if data.rstrip(b"\0")[-2:] != _EOC.to_bytes(2, "big"):
                raise ValueError("its JPEG 2000 stream ends early")
            return
        if length < _PART_HEAD or at + length > len(data):
            raise ValueError("its JPEG 2000 stream ends early")
        at += length
    if marker != _EOC and at != len(data):  # some writers leave the end marker out
        raise ValueError("its JPEG 2000 stream is damaged")


def decode_jpeg_2000(data: bytes, kind: StreamKind) -> NDArray[np.uint8]:
    """RGB, uint8 of `kind.shape`.

    At a reduced scale the finer resolutions are left out; of several, one less, and the rest is averaged, which is much
    nearer to the average of all pixels. Averaged is also what a stream does not hold at a reduced resolution, and a
    stream that keeps its colours at a lower resolution than its brightness.

    Raises
    ------
    ValueError
        The stream is damaged, or not what the file says.
    """
    from PIL import Image

    stream = read_codestream(data)
    if (stream.width, stream.height) != (kind.width, kind.height):
        raise ValueError(f"it holds {stream.width} x {stream.height} px, not {kind.width} x {kind.height}")
    if stream.components != 3 or not stream.is_8_bit or (stream.is_subsampled and not kind.is_ycbcr):
        raise ValueError("its pixels are not 8-bit RGB")
    halvings = kind.scale.bit_length() - 1
    left_out = 0 if stream.is_subsampled else min(max(halvings - 1, 1 if halvings else 0), stream.levels)
    image = Image.open(io.BytesIO(stream.data), formats=["JPEG2000"])
    image.reduce = left_out  # type: ignore[method-assign, assignment]
    image.load()
    if image.mode != "RGB":
        raise ValueError("its pixels are not 8-bit RGB")
    pixels = np.asarray(image)
    # of subsampled components Pillow makes RGB itself
    if kind.is_ycbcr and not stream.is_subsampled and not stream.transforms_colour:
        pixels = ycbcr_to_rgb(pixels)
    if left_out:
        pixels = _centred(pixels, 1 << left_out)
    rest = 1 << (halvings - left_out)
    return pixels if rest == 1 else np.asarray(Image.fromarray(pixels).reduce(rest))


def _centred(pixels: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """A reduced resolution, moved to where averages of scale x scale pixels lie.

    Sample k of it stands for pixel scale * k, and not for the middle of those from there to scale * (k + 1) - 1. The
    move by (scale - 1) / (2 * scale) of a sample is a cubic convolution (Keys 1981, a = -1/2), down and across.
    """
    t = (scale - 1) / (2 * scale)
    weights = (
        (-t + 2 * t**2 - t**3) / 2, (2 - 5 * t**2 + 3 * t**3) / 2, (t + 4 * t**2 - 3 * t**3) / 2, (t**3 - t**2) / 2,
    )  # fmt: skip
    moved = pixels.astype(np.float32)
    for _ in range(2):
        n = len(moved)
        # beyond the storage tile each row goes on as it ended
        ends = [2 * moved[:1] - moved[min(1, n - 1)], moved, *(2 * moved[-1:] - moved[max(n - i, 0)] for i in (2, 3))]
        wider = np.concatenate(ends)
        moved = sum(np.float32(w) * wider[i : i + n] for i, w in enumerate(weights)).swapaxes(0, 1)  # type: ignore[union-attr]
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)
