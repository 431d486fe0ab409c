"""Write the seed corpus of fuzz_tile.c: small streams of every coding, whole and spoilt.

    python csrc/fuzz/make_corpus.py FOLDER

Needs numpy and imagecodecs (the dev extra).
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

SIZES = ((64, 64), (240, 240), (16, 16), (48, 80), (104, 72), (256, 16), (24, 8), (128, 128))


def picture(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width * height)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def split_tables(stream: bytes) -> tuple[bytes, bytes]:
    """A stream as the abbreviated stream of its tables and the stream without them."""
    tables, rest, at = bytearray(b"\xff\xd8"), bytearray(b"\xff\xd8"), 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        (tables if stream[at + 1] in (0xDB, 0xC4) else rest).extend(stream[at:end])
        at = end
    return bytes(tables + b"\xff\xd9"), bytes(rest + stream[at:])


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, choice: int, tables: bytes, stream: bytes) -> None:
        for scales in range(sum(name.encode()) % 4, 32, 5):
            head = bytes([choice, scales]) + len(tables).to_bytes(2, "big")
            (folder / f"{name}-{scales}").write_bytes(head + tables + stream)

    for number, (width, height) in enumerate(SIZES):
        pixels = picture(width, height)
        for coding in ("444", "422", "420", "440", "411"):
            stream = imagecodecs.jpeg8_encode(
                pixels, level=60, colorspace="RGB", outcolorspace="YCBCR", subsampling=coding
            )
            write(f"{number}-{coding}", number, b"", stream)
            write(f"{number}-{coding}-tables", number, *split_tables(stream))
            write(f"{number}-{coding}-cut", number, b"", stream[: len(stream) * 2 // 3])
        rgb = imagecodecs.jpeg8_encode(pixels, level=60, colorspace="RGB", outcolorspace="RGB")
        write(f"{number}-rgb", number | 8, b"", rgb)
        write(f"{number}-rgb-tables", number | 8, *split_tables(rgb))
        progressive = io.BytesIO()
        Image.fromarray(pixels).save(progressive, "JPEG", quality=60, progressive=True)
        write(f"{number}-progressive", number, b"", progressive.getvalue())
        grey = io.BytesIO()
        Image.fromarray(pixels).convert("L").save(grey, "JPEG")
        write(f"{number}-grey", number, b"", grey.getvalue())


if __name__ == "__main__":
    main()
