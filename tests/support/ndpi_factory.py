"""Hamamatsu NDPI for tests, so that OpenSlide and tifffile open it: each level one JPEG stream with restart markers.

An NDPI is a little-endian TIFF whose offsets have 64 bits: where the next directory lies it says in 8 bytes, and behind
each directory stand the upper 32 bits of its values. A level is one strip. Its stream is cut by restart markers into
intervals that lie side by side, one row of blocks high; the tag McuStarts says where in the strip each begins.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .slide_factory import encode, reduced

MCU = {"444": (8, 8), "422": (16, 8), "420": (16, 16)}
"""Width and height of what one block of a restart interval shows, pixels."""
STARTS, STARTS_HIGH, SOURCE_LENS, FOCAL_PLANE, FLAG = 65426, 65432, 65421, 65424, 65420
SHORT, LONG, RATIONAL, ASCII, SIGNED, FLOAT = 3, 4, 5, 2, 9, 11
_FORMS = {SHORT: "H", LONG: "I", SIGNED: "i", FLOAT: "f"}
_EOI = b"\xff\xd9"


@dataclass(frozen=True)
class Cut:
    """A JPEG stream that is cut into restart intervals.

    Attributes
    ----------
    width, height : int
        Pixels.
    head : bytes
        All before the first interval.
    intervals : sequence of bytes
        Row by row, without markers.
    """

    width: int
    height: int
    head: bytes
    intervals: Sequence[bytes]

    @property
    def stream(self) -> bytes:
        """The whole stream."""
        parts = [self.head]
        for number, interval in enumerate(self.intervals):
            parts += [interval, bytes([0xFF, 0xD0 + number % 8])]
        return b"".join(parts[:-1]) + _EOI

    @property
    def starts(self) -> list[int]:
        """Where each interval begins in the stream, bytes."""
        sizes = [len(self.head), *(len(interval) + 2 for interval in self.intervals[:-1])]
        return [int(at) for at in np.cumsum(sizes)]


def cut_stream(rgb: NDArray[np.uint8], *, interval: int, coding: str = "422", quality: int = 90) -> Cut:
    """Code a picture; its width must be whole intervals of `interval` blocks, its height whole blocks."""
    height, width = rgb.shape[:2]
    across, down = MCU[coding]
    if width % (interval * across) or height % down:
        raise ValueError(f"{width} x {height} px are not whole intervals of {interval * across} x {down} px")
    head, intervals = b"", []
    for top in range(0, height, down):
        stream = _strip(rgb[top : top + down], interval, coding, quality)
        head, scan = _split(stream)
        at = 0
        for _ in range(width // (interval * across) - 1):
            end = _marker(scan, at)
            intervals.append(scan[at:end])
            at = end + 2
        intervals.append(scan[at:-2])
    return Cut(width, height, resized(head, width, height), intervals)


def _strip(rows: NDArray[np.uint8], interval: int, coding: str, quality: int) -> bytes:
    out = io.BytesIO()
    sampling = {"444": 0, "422": 1, "420": 2}[coding]
    picture = Image.fromarray(np.ascontiguousarray(rows))
    picture.save(out, "JPEG", quality=quality, subsampling=sampling, restart_marker_blocks=interval)
    return out.getvalue()


def _split(stream: bytes) -> tuple[bytes, bytes]:
    """A stream up to its scan, and from there."""
    at = 2
    while stream[at + 1] != 0xDA:
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return stream[:at], stream[at:]


def _marker(scan: bytes, at: int) -> int:
    """Where the next restart marker stands."""
    while True:
        at = scan.index(b"\xff", at)
        if 0xD0 <= scan[at + 1] <= 0xD7:
            return at
        at += 2


def resized(head: bytes, width: int, height: int) -> bytes:
    """The same head for a picture of another size; one that JPEG cannot state is stated as 0, as scanners do."""
    at = head.index(b"\xff\xc0") + 5
    stated = (side if side <= 65500 else 0 for side in (height, width))
    return head[:at] + struct.pack(">HH", *stated) + head[at + 4 :]


def write_ndpi(
    path: Path,
    rgb: NDArray[np.uint8],
    *,
    interval: int,
    coding: str = "422",
    mpp: float = 0.5,
    levels: tuple[int, ...] = (),
    quality: int = 90,
    starts: str = "both",
    more: Mapping[int, tuple[int, Sequence[float] | bytes]] | None = None,
) -> Path:
    """Write an NDPI with a picture of the whole glass.

    Parameters
    ----------
    interval : int
        Blocks of a restart interval, of level 0; a coarser level has one interval a row.
    levels : tuple of int
        Further levels, by their downsample.
    starts : str
        What tells where intervals begin: "both" (low and high halves), "low", or "none".
    more : dict of (type, values)
        Tags of level 0, in place of what it has.
    """
    cuts = [cut_stream(rgb, interval=interval, coding=coding, quality=quality)]
    for scale in levels:
        image = reduced(rgb, scale)
        blocks = image.shape[1] // MCU[coding][0]
        cuts.append(cut_stream(image, interval=blocks, coding=coding, quality=quality))
    return write_cuts(path, cuts, mpp=mpp, starts=starts, more=more)


def write_cuts(
    path: Path,
    cuts: Sequence[Cut],
    *,
    mpp: float = 0.5,
    starts: str = "both",
    more: Mapping[int, tuple[int, Sequence[float] | bytes]] | None = None,
) -> Path:
    """Write levels that are coded already, finest first; see `write_ndpi`."""
    lens = 10 / mpp
    pages = []
    for number, cut in enumerate(cuts):
        scale = cuts[0].width / cut.width
        tags = _tags(cut.width, cut.height, lens / scale, mpp * scale)
        if starts != "none" and len(cut.intervals) > 1:
            tags[STARTS] = LONG, cut.starts
        if starts == "both" and len(cut.intervals) > 1:
            tags[STARTS_HIGH] = LONG, [0] * len(cut.starts)
        pages.append((cut.stream, {**tags, **((more or {}) if number == 0 else {})}))
    glass = encode(np.full((40, 120, 3), 235, np.uint8), "444")
    pages.append((glass, _tags(120, 40, -1.0, 200.0)))
    path.write_bytes(_tiff(pages))
    return path


def _tags(width: int, height: int, lens: float, mpp: float) -> dict[int, tuple[int, Sequence[float] | bytes]]:
    per_cm = [round(10_000_000 / mpp), 1000]
    return {
        256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [8, 8, 8]), 259: (SHORT, [7]), 262: (SHORT, [6]),
        271: (ASCII, b"Hamamatsu"), 272: (ASCII, b"C9600-12"), 277: (SHORT, [3]), 278: (LONG, [height]),
        282: (RATIONAL, per_cm), 283: (RATIONAL, per_cm), 284: (SHORT, [1]), 296: (SHORT, [3]),
        FLAG: (LONG, [1]), SOURCE_LENS: (FLOAT, [lens]), 65422: (SIGNED, [0]), 65423: (SIGNED, [0]),
        FOCAL_PLANE: (SIGNED, [0]),
    }  # fmt: skip


def _tiff(pages: Sequence[tuple[bytes, Mapping[int, tuple[int, Sequence[float] | bytes]]]]) -> bytes:
    """A TIFF of directories that have one strip each."""
    data, link = bytearray(b"II*\0" + bytes(8)), 4
    for stream, given in pages:
        tags = {**given, 273: (LONG, [len(data)]), 279: (LONG, [len(stream)])}
        data += stream
        entries = []
        for tag, (kind, values) in sorted(tags.items()):
            count, value = _value(kind, values)
            if len(value) > 4:
                data += b"\0" * (len(data) % 2)
                value, at = struct.pack("<I", len(data)), value
                data += at
            entries.append(struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0"))
        data += b"\0" * (len(data) % 2)
        data[link : link + 8] = struct.pack("<Q", len(data))
        link = len(data) + 2 + 12 * len(entries)
        data += struct.pack("<H", len(entries)) + b"".join(entries) + bytes(8) + bytes(4 * len(entries))
    return bytes(data)


def _value(kind: int, values: Sequence[float] | bytes) -> tuple[int, bytes]:
    """(count, bytes)."""
    if kind == ASCII:
        return len(values) + 1, bytes(values) + b"\0"  # type: ignore[arg-type]
    if kind == RATIONAL:
        return len(values) // 2, struct.pack(f"<{len(values)}I", *values)
    return len(values), struct.pack(f"<{len(values)}{_FORMS[kind]}", *values)
