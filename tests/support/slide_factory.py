"""Small slides for tests, written by tifffile: any coding, tile size, pyramid and damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth coloured noise with detail at several scales: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for size, weight in ((4, 30), (16, 40), (64, 50)):
        coarse = rng.normal(size=(height // size + 2, width // size + 2, 3)).astype(np.float32)
        rows, columns = np.arange(height) / size, np.arange(width) / size
        r, c = rows.astype(int), columns.astype(int)
        fr, fc = (rows - r)[:, None, None], (columns - c)[None, :, None]
        a, b = coarse[r][:, c], coarse[r][:, c + 1]
        d, e = coarse[r + 1][:, c], coarse[r + 1][:, c + 1]
        image += weight * ((a * (1 - fc) + b * fc) * (1 - fr) + (d * (1 - fc) + e * fc) * fr)
    return np.clip(image + np.array([190, 120, 170], np.float32), 0, 255).astype(np.uint8)


def write_slide(
    path: Path,
    rgb: NDArray[np.uint8],
    *,
    tile: int = 256,
    coding: str = "420",
    mpp: float | None = 0.5,
    bigtiff: bool = False,
    levels: tuple[int, ...] = (),
    quality: int = 90,
    shared_tables: bool = False,
    more: str = "",
) -> Path:
    """Write an Aperio-style SVS of JPEG tiles.

    Parameters
    ----------
    coding : str
        "rgb" (coded as RGB, photometric 2), "444", "422" or "420".
    levels : tuple of int
        Further levels, by their downsample.
    more : str
        Further text of the ImageDescription.
    """
    note = "Aperio Image Library v12.0.0\n" + "x".join(map(str, rgb.shape[1::-1]))
    if mpp is not None:
        note += f"|AppMag = {10 / mpp:g}|MPP = {mpp:g}"
    note += more
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for scale in (1, *levels):
            image = rgb if scale == 1 else reduced(rgb, scale)
            streams = [encode(part, coding, quality) for part in tiles_of(image, tile)]
            writer.write(
                iter(streams),
                shape=image.shape,
                dtype=np.uint8,
                tile=(tile, tile),
                compression="jpeg",
                photometric="rgb" if coding == "rgb" else "ycbcr",
                subsampling={"rgb": (1, 1), "444": (1, 1), "422": (2, 1), "420": (2, 2)}[coding],
                description=note,
                metadata=None,
                subfiletype=0,
            )
    if coding == "rgb":
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            for page in tiff.pages:
                page.tags["PhotometricInterpretation"].overwrite(2)
    return path


def reduced(rgb: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Averages of scale x scale pixels; what is left at the right and below is cut off."""
    h, w = rgb.shape[0] // scale, rgb.shape[1] // scale
    blocks = rgb[: h * scale, : w * scale].reshape(h, scale, w, scale, 3)
    return np.rint(blocks.mean((1, 3))).astype(np.uint8)


def tiles_of(image: NDArray[np.uint8], tile: int) -> list[NDArray[np.uint8]]:
    """The storage tiles of a picture, row by row; those at the border are padded."""
    pad = [(0, -image.shape[0] % tile), (0, -image.shape[1] % tile), (0, 0)]
    padded = np.pad(image, pad, mode="edge")
    return [
        np.ascontiguousarray(padded[y : y + tile, x : x + tile])
        for y in range(0, padded.shape[0], tile)
        for x in range(0, padded.shape[1], tile)
    ]


def encode(part: NDArray[np.uint8], coding: str, quality: int = 90) -> bytes:
    """A JPEG stream, coded as "rgb", "444", "422", "420", "440" or "411"; whole, with an Adobe or JFIF marker."""
    if coding == "rgb":
        options = {"colorspace": "RGB", "outcolorspace": "RGB"}
    else:
        options = {"colorspace": "RGB", "outcolorspace": "YCBCR", "subsampling": coding}
    return bytes(imagecodecs.jpeg_encode(np.ascontiguousarray(part), level=quality, **options))


def split_tables(stream: bytes) -> tuple[bytes, bytes]:
    """A stream as the abbreviated stream of its tables and the stream without them."""
    tables, rest, at = bytearray(b"\xff\xd8"), bytearray(b"\xff\xd8"), 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        (tables if stream[at + 1] in (0xDB, 0xC4) else rest).extend(stream[at:end])
        at = end
    return bytes(tables + b"\xff\xd9"), bytes(rest + stream[at:])


def damage(path: Path, number: int, how: str) -> None:
    """Spoil storage tile `number` of level 0: "missing", "truncated", "garbage" or "beyond" the file."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, size = page.dataoffsets[number], page.databytecounts[number]
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tags = tiff.pages[0].tags
        sizes, offsets = list(tags["TileByteCounts"].value), list(tags["TileOffsets"].value)
        if how == "missing":
            sizes[number], offsets[number] = 0, 0
        elif how == "truncated":
            sizes[number] = size // 3
        elif how == "beyond":
            offsets[number] = path.stat().st_size + 1000
        if how != "garbage":
            tags["TileByteCounts"].overwrite(sizes)
            tags["TileOffsets"].overwrite(offsets)
    if how == "garbage":
        with path.open("r+b") as handle:
            handle.seek(offset + size // 2)
            handle.write(bytes(range(256)) * (size // 4 // 256 + 1))


def replace_tiles(source: Path, target: Path, change: Callable[[int, bytes], bytes], page: int = 0) -> Path:
    """A copy of a slide in which each storage tile's stream of a page is `change(number, stream)`, at the file's end.

    An empty stream makes a tile of length 0.
    """
    data = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as tiff:
        places = list(zip(tiff.pages[page].dataoffsets, tiff.pages[page].databytecounts, strict=True))
    offsets, sizes = [], []
    for number, (offset, size) in enumerate(places):
        stream = change(number, bytes(data[offset : offset + size]))
        offsets.append(len(data) if stream else 0)
        sizes.append(len(stream))
        data += stream
    target.write_bytes(data)
    with tifffile.TiffFile(target, mode="r+b") as tiff:
        tiff.pages[page].tags["TileByteCounts"].overwrite(sizes)
        tiff.pages[page].tags["TileOffsets"].overwrite(offsets)
    return target
