"""Whether the storage tiles of a cloud-optimised GeoTIFF lie as its own record says.

Its writer states before the first directory in which order they lie, and keeps each one's length before it: a list of
places that was spoilt, or copied from another file, does not fit that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import COPY_AGAIN, SlideError
from .tiff_pages import MASK, tiff_pages

RECORD = b"GDAL_STRUCTURAL_METADATA_SIZE="
RECORD_BYTES = 1024
SAMPLES = 64
"""Storage tiles of a page whose lengths are looked at."""


def check_cog(path: Path) -> None:
    """Refuse one whose lists of storage tiles are not those that its record speaks of. Other files pass.

    Raises
    ------
    SlideError
        A storage tile has another length than the file keeps before it, or they lie in another order.
    """
    import tifffile

    try:
        with path.open("rb") as handle:
            said = _record(handle.read(RECORD_BYTES))
            if not said or said.get(b"KNOWN_INCOMPATIBLE_EDITION", b"NO") != b"NO":
                return  # there is no record, or what edited the file has said that it no longer holds
            with tifffile.TiffFile(path) as tiff:
                pages = [page for page in tiff_pages(tiff) if page.is_tiled and not page.subfiletype & MASK]
                why = next((why for page in pages if (why := _contradiction(page, said, handle))), "")
    except Exception:
        return  # no TIFF, or one that tifffile cannot walk: the reader that opened it says what is wrong
    if why:
        raise SlideError(
            f"its record of storage tiles contradicts its directories: {why}", path=path, remedy=COPY_AGAIN
        )


def _record(head: bytes) -> dict[bytes, bytes]:
    """What the record says; nothing where there is none."""
    begin = 16 if head[2:3] == b"+" else 8  # behind the header of BigTIFF, or of TIFF
    if head[begin : begin + len(RECORD)] != RECORD:
        return {}
    lines = head[begin:].split(b"\n")
    return dict(line.strip().split(b"=", 1) for line in lines[1:10] if line.count(b"=") == 1)


def _contradiction(page: Any, said: dict[bytes, bytes], handle: BinaryIO) -> str:
    """What does not fit of a page; empty where all does."""
    offsets, lengths = np.array(page.dataoffsets, np.int64), np.array(page.databytecounts, np.int64)
    present = np.flatnonzero(lengths > 0)
    if said.get(b"BLOCK_ORDER") == b"ROW_MAJOR" and (np.diff(offsets[present]) <= 0).any():
        return f"those of {page.imagewidth} x {page.imagelength} px do not lie row by row"
    if said.get(b"BLOCK_LEADER") == b"SIZE_AS_UINT4" and present.size:
        for tile in present[np.unique(np.linspace(0, present.size - 1, SAMPLES).astype(int))]:
            handle.seek(max(0, offsets[tile] - 4))
            if int.from_bytes(handle.read(4), "little") != lengths[tile]:
                return f"storage tile {tile} of {page.imagewidth} x {page.imagelength} px has another length"
    return ""
