"""Cloud-optimised GeoTIFF as GDAL lays it out: a record, all directories, then the storage tiles, coarsest level first.

Each storage tile has its length before it and its last four bytes once more behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .codec_factory import encode_tile
from .format_factory import Page

SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 3, 4, 5, 7, 16
_FORMS = {SHORT: "H", LONG: "I", RATIONAL: "I", UNDEFINED: "B", LONG8: "Q"}
RECORD = (
    "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION={edited}\n "
)


def write_cog(
    path: Path,
    pages: Sequence[Page],
    *,
    mpp: float = 0.5,
    with_masks: bool = False,
    edited: bool = False,
    absent: Sequence[int] = (),
) -> Path:
    """Write levels, finest first, as a BigTIFF.

    Parameters
    ----------
    with_masks : bool
        Whether each level has a mask behind it, which is true everywhere.
    edited : bool
        What the record says: whether something was changed so that it no longer holds.
    absent : sequence of int
        Storage tiles of level 0 that are left out.
    """
    record = RECORD.format(edited="YES" if edited else "NO").encode()
    data = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    data += f"GDAL_STRUCTURAL_METADATA_SIZE={len(record):06} bytes\n".encode() + record
    data += b"\0" * (-len(data) % 8)
    directories: list[tuple[dict[int, tuple[int, list[int]]], list[bytes]]] = []
    for number, page in enumerate(pages):
        streams = [b"" if not number and i in absent else stream for i, stream in enumerate(page.streams)]
        directories.append((_tags(page, mpp if number == 0 else None, reduced=number > 0), streams))
        if with_masks:
            directories.append(_mask(page, reduced=number > 0))
    link, places = 8, []
    for tags, streams in directories:
        tags = {**tags, 324: (LONG8, [0] * len(streams)), 325: (LONG, [len(stream) for stream in streams])}
        data[link : link + 8] = struct.pack("<Q", len(data))
        link, at = _add_directory(data, tags)
        places.append(at)
    for at, (_, streams) in reversed(list(zip(places, directories, strict=True))):
        for number, stream in enumerate(streams):
            if stream:
                data += struct.pack("<I", len(stream))
                data[at + 8 * number : at + 8 * number + 8] = struct.pack("<Q", len(data))
                data += stream + stream[-4:]
    path.write_bytes(data)
    return path


def _tags(page: Page, mpp: float | None, *, reduced: bool) -> dict[int, tuple[int, list[int]]]:
    tags: dict[int, tuple[int, list[int]]] = {
        254: (LONG, [int(reduced)]), 256: (LONG, [page.width]), 257: (LONG, [page.height]), 258: (SHORT, [8, 8, 8]),
        259: (SHORT, [7]), 262: (SHORT, [page.photometric]), 277: (SHORT, [3]), 284: (SHORT, [1]),
        322: (LONG, [page.side]), 323: (LONG, [page.side]),
    }  # fmt: skip
    if page.tables:
        tags[347] = UNDEFINED, list(page.tables)
    if page.photometric == 6:
        tags[530] = SHORT, list(page.subsampling)
    if mpp is not None:
        tags |= {
            282: (RATIONAL, [round(1e7 / mpp), 1000]),
            283: (RATIONAL, [round(1e7 / mpp), 1000]),
            296: (SHORT, [3]),
        }
    return tags


def _mask(page: Page, *, reduced: bool) -> tuple[dict[int, tuple[int, list[int]]], list[bytes]]:
    ones = np.full((page.side, page.side // 8, 1), 255, np.uint8)
    stream = encode_tile(ones, "deflate", differences=False)
    tags: dict[int, tuple[int, list[int]]] = {
        254: (LONG, [4 + int(reduced)]), 256: (LONG, [page.width]), 257: (LONG, [page.height]), 258: (SHORT, [1]),
        259: (SHORT, [8]), 262: (SHORT, [4]), 277: (SHORT, [1]), 284: (SHORT, [1]),
        322: (LONG, [page.side]), 323: (LONG, [page.side]),
    }  # fmt: skip
    return tags, [stream] * len(page.streams)


def _add_directory(data: bytearray, tags: dict[int, tuple[int, list[int]]]) -> tuple[int, int]:
    """Where the link to the next directory stands, and where the places of storage tiles do."""
    begin = len(data)
    link = begin + 8 + 20 * len(tags)
    data += bytes(link + 8 - begin)
    places = 0
    struct.pack_into("<Q", data, begin, len(tags))
    for number, (tag, (kind, values)) in enumerate(sorted(tags.items())):
        value = struct.pack(f"<{len(values)}{_FORMS[kind]}", *values)
        count = len(values) // 2 if kind == RATIONAL else len(values)
        at = begin + 8 + 20 * number + 12
        if len(value) > 8:
            data += b"\0" * (-len(data) % 8)
            struct.pack_into("<Q", data, at, len(data))
            at = len(data)
            data += value
        else:
            data[at : at + 8] = value.ljust(8, b"\0")
        struct.pack_into("<HHQ", data, begin + 8 + 20 * number, tag, kind, count)
        places = at if tag == 324 else places
    return link, places
