"""Write the seed corpus of fuzz_tile.c: small streams of every coding, whole and spoilt.

    python csrc/fuzz/make_corpus.py FOLDER

Needs numpy and imagecodecs (the dev extra).
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.slide_factory import encode, split_tables

SIZES = (
    *((64, 64), (240, 240), (16, 16), (48, 80), (104, 72), (256, 16), (24, 8), (128, 128)),
    *((61, 64), (64, 45), (75, 33), (17, 17), (255, 31), (9, 201), (8, 8), (127, 129)),
)
RGB = 16


def picture(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width * height)
    coarse = Image.fromarray(rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def disturb(stream: bytes) -> bytes:
    """A stream that leaves other tables behind: a quantisation table of ones after its scan."""
    return stream[:-2] + b"\xff\xdb\x00\x43\x00" + b"\x01" * 64 + stream[-2:]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, choice: int, tables: bytes, stream: bytes) -> None:
        first = sum(name.encode()) % 4
        for scales in range(first, 256, 61):
            # whole levels, and levels with holes of every kind
            present = 0x3F if scales == first else (scales * 37 + choice) & 0xFF
            head = bytes([choice, scales, present, (scales * 11) & 0xFF])
            lengths = len(tables).to_bytes(2, "big"), len(neighbour).to_bytes(2, "big")
            (folder / f"{name}-{scales}").write_bytes(head + lengths[0] + tables + lengths[1] + neighbour + stream)

    neighbour = b""
    for number, (width, height) in enumerate(SIZES):
        pixels = picture(width, height)
        for coding in ("444", "422", "420", "440", "411"):
            stream = encode(pixels, coding, 60)
            write(f"{number}-{coding}", number, b"", stream)
            write(f"{number}-{coding}-tables", number, *split_tables(stream))
            write(f"{number}-{coding}-cut", number, b"", stream[: len(stream) * 2 // 3])
            neighbour = disturb(stream)
        rgb = encode(pixels, "rgb", 60)
        write(f"{number}-rgb", number | RGB, b"", rgb)
        write(f"{number}-rgb-tables", number | RGB, *split_tables(rgb))
        progressive = io.BytesIO()
        Image.fromarray(pixels).save(progressive, "JPEG", quality=60, progressive=True)
        write(f"{number}-progressive", number, b"", progressive.getvalue())
        grey = io.BytesIO()
        Image.fromarray(pixels).convert("L").save(grey, "JPEG")
        write(f"{number}-grey", number, b"", grey.getvalue())


if __name__ == "__main__":
    main()
