"""A storage tile's JPEG stream as a file of its own, which a browser shows in the right colours.

Streams in a slide share their tables (abbreviated streams, ITU-T T.81 B.5), lie in DICOM items, and often do not say
whether they hold RGB or YCbCr: the file around them does. A browser would take RGB for YCbCr. An Adobe segment (APP14)
tells it. Comments and application data, which can hold names, are left out.
"""

from __future__ import annotations

import struct

from ..slide.jpeg_header import RGB, stated_colours

MAX_STREAM_BYTES = 16 << 20
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_DQT, _DHT, _DRI, _SOS, _APP0, _APP14 = 0xDB, 0xC4, 0xDD, 0xDA, 0xE0, 0xEE
_SHOWN_BY_BROWSERS = (0xC0, 0xC1, 0xC2)
"""Baseline, extended sequential and progressive, all Huffman-coded."""


def whole_stream(stream: bytes, tables: bytes, photometric: int, width: int, height: int) -> bytes | None:
    """The stream with its tables and a word on its colours; None where a browser could not show it as it is meant.

    Parameters
    ----------
    stream : bytes
        As it lies in the file, without the headers of DICOM items.
    tables : bytes
        What all streams share; may be empty.
    photometric : int
        2 (RGB) or 6 (YCbCr): what the file says. A stream that says so itself counts more.
    width, height : int
        Of the storage tile, pixels. A stream of another size is not passed on.
    """
    shared = _segments(tables) if tables else []
    found = _segments(stream)
    if not found or shared is None or found[-1][0] != _SOS:
        return None
    frames = [body for marker, body in found if marker in _SHOWN_BY_BROWSERS]
    others = [marker for marker, _ in found if 0xC0 <= marker <= 0xCF and marker not in (*_SHOWN_BY_BROWSERS, _DHT)]
    if len(frames) != 1 or others or len(frames[0]) < 15:
        return None
    precision, rows, columns, components = struct.unpack(">BHHB", frames[0][:6])
    if (precision, rows, columns, components) != (8, height, width, 3):
        return None
    stated = stated_colours(stream)
    if len(stated) > 1:
        return None
    is_rgb = (photometric if not stated else next(iter(stated))) == RGB
    parts = [_SOI, _segment(_APP14, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0 if is_rgb else 1))]
    parts += [_segment(marker, body) for marker, body in shared if marker in (_DQT, _DHT, _DRI)]
    parts += [_segment(marker, body) for marker, body in found[:-1] if not (_APP0 <= marker <= 0xEF or marker == 0xFE)]
    return b"".join([*parts, b"\xff\xda", found[-1][1]])


def _segments(stream: bytes) -> list[tuple[int, bytes]] | None:
    """(marker, body) up to the first scan, whose "body" is all that follows its marker; None for a broken stream."""
    if stream[:2] != _SOI:
        return None
    found: list[tuple[int, bytes]] = []
    at = 2
    while at + 2 <= len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xD9:
            return found
        if marker == _SOS:
            rest = stream[at + 2 :].rstrip(b"\0")
            return [*found, (_SOS, rest if rest.endswith(_EOI) else rest + _EOI)]
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(stream):
            return None
        found.append((marker, stream[at + 4 : at + 2 + length]))
        at += 2 + length
    return None


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body
