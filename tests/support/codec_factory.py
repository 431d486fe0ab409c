"""Slides whose storage tiles are not JPEG: JPEG 2000 as Aperio has it, WebP, JPEG XL, and compressed pixels."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from .format_factory import Page
from .slide_factory import tiles_of

COMPRESSIONS = {
    "j2k-ycbcr": 33003, "j2k-rgb": 33005, "j2k": 34712, "htj2k": 34712, "jxl": 50002, "webp": 50001,
    "deflate": 8, "lzw": 5, "zstd": 50000,
}  # fmt: skip
"""TIFF's Compression of each coding that `write_codec_slide` knows."""

PSNR = 54.0
"""Decibels of the JPEG 2000 that is measured."""
SUBSAMPLED_SIDE = 64
SUBSAMPLED = base64.b64decode(
    "/0//UQAvAAAAAABAAAAAQAAAAAAAAAAAAAAAQAAAAEAAAAAAAAAAAAADBwEBBwIBBwIB/1IADAAAAAEAAwQEAAH/XAANQEBISFBISFBISFD/ZA"
    "AlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjD/kAAKAAAAAAOHAAH/k8+wyBDiPZG2LqYR/Yn9olg8VYe+n5pehubuPfwxnBU5"
    "/uAaZ8ld2HZuMWkVSsJwHcprRqlfz7BwE83I5VKL1K3yp8VUZQUVe+FEQhjHNjXGNkBq18+wdCU5QqHnS+JOrvnD2GesOn+iZxTqcnxEOd5/64"
    "4OwHwqwPkJwB1INn2km0bh0iNN4sWK4CoH9FgaWf9/PaSckuYgHkoDkJ6Z/qc2RzFg3kYd/gSqN8uoT1P4ZxTpV7Zn08D4w0BwYCFw7mI7Synd"
    "3sD5BkB8JUAKgCIcxFxu9UH554tTHync3NXvAMRuSKoOy6H/OA05K8A7bQHw38AduBgDT4ZbvZBru0KV59g+9YiswGcdyGQefJZTNfwbMul53U"
    "sCQ4fvK+1K0Ddmkcl7djN+le10152sGX90Nnyg+1RHTBLQUUi1+7W9AJSexZsARLbV/1sHhDg92lAXp786SOVqfh4Xs6pjs5Gv0c7fT6O2bx85"
    "fyeTI6+xRCxMs1qXHTAcbS9ni3nq6+bpPQ8gZ74D6cMp/f28kDaObFnfRTf5lCMawMLEV788wYXvwHwkwHwlgDX1dnC/L1RTvYc8J+ii+oMP0u"
    "S7wPkRwDq8AdWANqPZZr2ft+KD/3Ho1qPWTD5G49/I2kU++QB2IWS780s23m8KE2vLrjUsNcJ5XIDmbrVNAVKZBV30PxgWrUzYHNTLXOk5rEd7"
    "DB26oJrs76/AO9OQDu2g1PjSWtQv6GCAdN+zl8UfeufNZM2KreaU95qeXOiGzxwzzo1YwMukh/WeOyuFTf4wS99QMQDNKIWsTTyZ74XoPA8wYO"
    "t/Ql4x3Ax/deb8Ujd+S1qW707o6P0neOqZPjII1wFYiAIyiVRLvLZpEsL6rpwei9AfENwHzJ11F2P9rqnaZVzZ3Kjbcmqhr9NYJpyIgZz/b+eh"
    "pl2zynfPFOc2Gkl78xaoPb+x6SPykLCljc77IcXGG+DxRYnnVa9tbPbrt4FEzLF08fTB4760sS9ugqjZlZFZuWFHipQzLuKSuPK84RlS0ZB5RO"
    "tfuxRRGljnWnVnK5jFmW9TFqhffkyJhRa7V4ZTGbATe8A4eAdSAF77xZ2kDuPIdN9+JwXkLXmk+eVYD+TtXUnAdNgC6ACcx3Id6sybzFH1GLqd"
    "DzW/EJy/xr/hdG+DOQ9OzfRYf8E7rXr8YkBnR7yefUf/2Q=="
)
"""A JPEG 2000 stream as Aperio scanners write it (33003): YCbCr 4:2:2 of 64 x 64 px, red to the right, green downwards.

Made by opj_compress -F 64,64,3,8,u@1x1:2x1:2x1 -n 4 -r 12; no Python library writes such a stream.
"""


def encode_tile(
    part: NDArray[np.uint8], coding: str, *, resolutions: int = 5, differences: bool = True, psnr: float = 45
) -> bytes:
    """One storage tile, uint8 [h, w, 3], as a stream; `psnr` is JPEG 2000's, decibels."""
    part = np.ascontiguousarray(part)
    if coding == "j2k-ycbcr":
        part = np.asarray(Image.fromarray(part).convert("YCbCr"))
    if coding.startswith("j2k"):
        return bytes(
            imagecodecs.jpeg2k_encode(
                part,
                level=psnr,
                codecformat="j2k",
                mct=coding != "j2k-ycbcr",
                reversible=False,
                resolutions=resolutions,
            )
        )
    if coding == "htj2k":
        return bytes(imagecodecs.htj2k_encode(part))
    if coding == "jxl":
        return bytes(imagecodecs.jpegxl_encode(part, distance=1.0))
    if coding == "webp":
        return bytes(imagecodecs.webp_encode(part, level=90))
    if differences:
        part = np.diff(part, axis=1, prepend=np.uint8(0)).astype(np.uint8)
    pack = {"deflate": imagecodecs.zlib_encode, "lzw": imagecodecs.lzw_encode, "zstd": imagecodecs.zstd_encode}[coding]
    return bytes(pack(part.tobytes()))


def write_codec_slide(
    path: Path,
    rgb: NDArray[np.uint8],
    coding: str,
    *,
    side: int = 128,
    mpp: float = 0.5,
    differences: bool = True,
    streams: Sequence[bytes] | None = None,
    resolutions: int = 5,
) -> Path:
    """A TIFF of one level; an Aperio SVS where the name ends so.

    Parameters
    ----------
    streams : sequence of bytes, optional
        Storage tiles that are written as they are.
    """
    plain = coding in ("deflate", "lzw", "zstd")
    if streams is None:
        streams = [
            encode_tile(part, coding, resolutions=resolutions, differences=differences) for part in tiles_of(rgb, side)
        ]
    note = f"Aperio Image Library v12.0.0\n|AppMag = 20|MPP = {mpp:g}" if path.suffix == ".svs" else None
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            iter(streams), shape=rgb.shape, dtype=np.uint8, tile=(side, side), photometric="rgb", metadata=None,
            description=note, resolution=(10_000 / mpp, 10_000 / mpp), resolutionunit=3,
            compression=coding if plain else "webp", predictor=plain and differences,
        )  # fmt: skip
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(COMPRESSIONS[coding])
    return path


def write_as_j2k(path: Path, page: Page, across: int, down: int, *, mpp: float) -> Path:
    """The top left storage tiles of a page of JPEG streams as an SVS of JPEG 2000, equal streams coded once.

    At PSNR a pixel takes about as many bytes as in Aperio's own files.
    """
    columns = -(-page.width // page.side)
    across, down = min(across, page.width // page.side), min(down, page.height // page.side)
    jpeg = page.whole_streams
    chosen = [jpeg[row * columns + column] for row in range(down) for column in range(across)]
    coded = {stream: encode_tile(imagecodecs.jpeg8_decode(stream), "j2k-rgb", psnr=PSNR) for stream in set(chosen)}
    rgb = np.broadcast_to(np.uint8(0), (down * page.side, across * page.side, 3))
    return write_codec_slide(path, rgb, "j2k-rgb", side=page.side, mpp=mpp, streams=[coded[s] for s in chosen])
