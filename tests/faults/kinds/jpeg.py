"""Hostile JPEG streams in one storage tile: the other tiles may not change, with any number of threads."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from ..attempt import Attempt
from ..pixels import others_unchanged
from ..world import MPP, SIDE, STORAGE_PX, World, infer, new_slide
from .tiff import Tiff

SHARE = 0.2
Change = Callable[[bytearray, random.Random], bytes]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def _markers(stream: bytes | bytearray) -> list[tuple[int, int]]:
    """(offset, marker) of every segment up to the scan."""
    found, at = [], 2
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        found.append((at, stream[at + 1]))
        if stream[at + 1] == 0xDA:
            break
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return found


def _scan(stream: bytes | bytearray) -> int:
    return next((at for at, marker in _markers(stream) if marker == 0xDA), len(stream) // 2)


def _flip(stream: bytearray, choose: random.Random) -> bytes:
    for _ in range(choose.choice((1, 1, 1, 5, 50))):
        stream[choose.randrange(len(stream))] ^= 1 << choose.randrange(8)
    return bytes(stream)


def _flip_header(stream: bytearray, choose: random.Random) -> bytes:
    stream[choose.randrange(_scan(stream) + 12)] = choose.randrange(256)
    return bytes(stream)


def _cut(stream: bytearray, choose: random.Random) -> bytes:
    return bytes(stream[: choose.randrange(len(stream))])


def _tables_after_the_scan(stream: bytearray, choose: random.Random) -> bytes:
    """Quantisation or Huffman tables between scan and EOI: they may not reach the next storage tile."""
    tables = choose.choice((
        _segment(0xDB, b"\x00" + bytes([choose.randrange(1, 256)]) * 64),
        _segment(0xDB, b"\x01" + bytes([choose.randrange(1, 256)]) * 64),
        _segment(0xC4, b"\x00" + bytes([0, 1, *[0] * 14]) + b"\x05"),
        _segment(0xDD, b"\x00\x01"),
        _segment(0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x00"),
    ))  # fmt: skip
    return bytes(stream[:-2]) + tables + b"\xff\xd9"


def _stray_marker(stream: bytearray, choose: random.Random) -> bytes:
    marker = bytes([0xFF, choose.choice((*range(0xD0, 0xD8), 0x01, 0xD8, 0xD9, 0xDC, 0xFF, 0x00, 0xFE))])
    at = choose.choice((2, *[at for at, _ in _markers(stream)], len(stream) - 2, choose.randrange(2, len(stream))))
    return bytes(stream[:at]) + marker + bytes(stream[at:])


def _frame(stream: bytearray, choose: random.Random) -> bytes:
    """Another size, depth, sampling or process in the frame header."""
    at = next((at for at, marker in _markers(stream) if marker in (0xC0, 0xC1, 0xC2)), None)
    if at is None:
        return bytes(stream)
    kind = choose.randrange(5)
    if kind == 0:
        stream[at + 1] = choose.choice((0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCA, 0xF7))
    elif kind == 1:
        stream[at + 4] = choose.choice((0, 1, 12, 16))
    elif kind == 2:
        place = at + 5 + choose.choice((0, 2))
        stream[place : place + 2] = choose.choice((0, 1, 64, 127, 129, 256, 65_500)).to_bytes(2, "big")
    elif kind == 3:
        stream[at + 9] = choose.choice((0, 1, 2, 4, 255))
    else:
        stream[at + 11 + 3 * choose.randrange(3)] = choose.choice((0, 0x11, 0x12, 0x21, 0x22, 0x41, 0x44, 0xFF))
    return bytes(stream)


def _another(stream: bytearray, choose: random.Random) -> bytes:
    """A whole stream of another coding and size, of the fuzzer's corpus."""
    import imagecodecs
    import numpy as np

    side = choose.choice((8, 64, 128, 136, 512))
    pixels = np.random.default_rng(choose.randrange(1 << 30)).integers(0, 256, (side, side, 3), np.uint8)
    coding = choose.choice(("444", "422", "420", "440", "411"))
    return bytes(
        imagecodecs.jpeg8_encode(pixels, level=50, colorspace="RGB", outcolorspace="YCBCR", subsampling=coding)
    )


def _not_jpeg(stream: bytearray, choose: random.Random) -> bytes:
    return choose.choice((b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", choose.randbytes(500), bytes(3000), b"\xff" * 3000))


def _scans(stream: bytearray, choose: random.Random) -> bytes:
    """The scan again and again: a stream that takes long."""
    at = _scan(stream)
    return bytes(stream[:-2]) + bytes(stream[at:-2]) * choose.choice((1, 40)) + b"\xff\xd9"


CHANGES: dict[str, Change] = {
    "flipped bits": _flip,
    "header bytes": _flip_header,
    "cut short": _cut,
    "tables after the scan": _tables_after_the_scan,
    "stray markers": _stray_marker,
    "the frame header": _frame,
    "another stream": _another,
    "no JPEG": _not_jpeg,
    "scans repeated": _scans,
}


def make(choose: random.Random, folder: Path, world: World) -> Attempt:
    what = choose.choice(list(CHANGES))
    coding = choose.choice(list(world.slides))
    tiff = Tiff(world.slides[coding])
    level = 0 if choose.random() < 0.8 else 1
    offsets, lengths = tiff.find(324, level), tiff.find(325, level)
    assert offsets is not None and lengths is not None
    form, places = tiff.array(offsets)
    length_form, length_places = tiff.array(lengths)
    number = choose.randrange(len(places))
    start, length = tiff.get(form, places[number]), tiff.get(length_form, length_places[number])
    stream = CHANGES[what](bytearray(tiff.data[start : start + length]), choose)
    tiff.put(form, places[number], tiff.append(stream))
    tiff.put(length_form, length_places[number], len(stream))
    slide = new_slide(folder, "slide.svs", bytes(tiff.data))
    sound = new_slide(folder, "sound.svs", world.slides[coding])
    across = -(-SIDE[1] // STORAGE_PX)
    spoilt = (
        [(number % across * STORAGE_PX, number // across * STORAGE_PX, STORAGE_PX, STORAGE_PX)] if level == 0 else []
    )
    more = ("--max-unreadable", "0.5", "--mpp", str(MPP))
    out = folder / "out"
    return Attempt(
        what,
        infer(slide, world.bundle, out, *more),
        slide.name,
        out,
        right=lambda: others_unchanged(slide, sound, spoilt),
    )
