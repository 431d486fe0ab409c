"""What a JPEG stream says about its own colours: by its JFIF or Adobe marker, or by the names of its components."""

from __future__ import annotations

RGB, YCBCR = 2, 6
"""As TIFF numbers them (PhotometricInterpretation)."""
NAMES = {RGB: "RGB", YCBCR: "YCbCr"}
HEADER_BYTES = 1 << 16
"""How much of a stream is looked at, at most: the frame header comes before the first scan."""
_NO_LENGTH = {0x01, 0xFF, *range(0xD0, 0xD9)}
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_APP0, _APP14, _SCAN = 0xE0, 0xEE, 0xDA


def stated_colours(stream: bytes) -> frozenset[int]:
    """RGB or YCBCR, as a stream of three components states it; empty where it says nothing.

    Both where its statements contradict each other. Components numbered 1, 2, 3 say nothing: RGB is numbered so, too,
    in tiles of Aperio scanners.
    """
    said: set[int] = set()
    at = 2
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            break
        marker = stream[at + 1]
        if marker in _NO_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        body = stream[at + 4 : at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")]
        if marker == _APP0 and body[:5] == b"JFIF\0":
            said.add(YCBCR)
        elif marker == _APP14 and body[:5] == b"Adobe" and len(body) >= 12:
            said.add(RGB if body[11] == 0 else YCBCR)
        elif marker in _FRAMES:
            if len(body) < 15 or body[5] != 3:
                return frozenset()  # no picture of three colours
            if bytes(body[6:15:3]) == b"RGB":
                said.add(RGB)
        elif marker == _SCAN:
            break
        at += 2 + max(2, int.from_bytes(stream[at + 2 : at + 4], "big"))
    return frozenset(said)
