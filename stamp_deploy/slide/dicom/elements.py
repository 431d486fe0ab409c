"""What an element of a DICOM file begins with, and the tags that are looked for."""

from __future__ import annotations

import struct

PIXEL_DATA, PER_FRAME = 0x7FE00010, 0x52009230
EXTENDED_OFFSETS, EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""Value representations with a length of 32 bits."""


class HeaderError(ValueError):
    """A header that is damaged, or not laid out as the standard says."""


def element_head(head: bytes, at: int) -> tuple[int, bytes, int, int]:
    """(tag, VR, start of the value, its length) of the element at a place, from its first 12 bytes.

    Items and delimiters have no VR.

    Raises
    ------
    HeaderError
        There are no 12 bytes where 12 are needed.
    """
    if len(head) < 8:
        raise HeaderError("it ends early")
    group, number = struct.unpack_from("<HH", head)
    tag = group << 16 | number
    if group == 0xFFFE:
        return tag, b"", at + 8, struct.unpack_from("<L", head, 4)[0]
    vr = head[4:6]
    if vr not in LONG_VRS:
        return tag, vr, at + 8, struct.unpack_from("<H", head, 6)[0]
    if len(head) < 12:
        raise HeaderError("it ends early")
    return tag, vr, at + 12, struct.unpack_from("<L", head, 8)[0]
