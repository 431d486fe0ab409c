"""Spoil small Hamamatsu NDPI at random, most in their directories, and look at their levels: a SlideError or an answer.

    python csrc/fuzz/fuzz_ndpi.py --seconds 120 --found FOLDER [--seed N]

Files that make the check fail in any other way are kept in FOLDER; the exit status is then 1.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from unittest.mock import Mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import fuzz_tiff
from support.ndpi_factory import write_ndpi
from support.slide_factory import texture

from stamp_deploy.slide.backends import Level
from stamp_deploy.slide.ndpi import read_ndpi
from stamp_deploy.slide.storage.index import StorageIndex
from stamp_deploy.slide.storage.jpeg_ndpi import jpeg_ndpi

TAGS = (256, 257, 273, 278, 279, 65421, 65424, 65426, 65432)


def spoil(data: bytes, choose: random.Random) -> bytes:
    """A few changes: of the directories, of the lists of intervals, of markers."""
    spoilt = bytearray(data)
    for _ in range(choose.randint(1, 6)):
        tag = choose.choice(TAGS).to_bytes(2, "little")
        at = spoilt.rfind(tag) if choose.random() < 0.5 else spoilt.find(tag)
        if choose.random() < 0.4 or at < 0:
            at = choose.randrange(max(1, len(spoilt) - 12))
        fuzz_tiff.change(spoilt, min(at + choose.choice((0, 4, 8)), max(0, len(spoilt) - 12)), choose)
    return bytes(spoilt)


def read(path: Path) -> None:
    """Read the levels and make the index of those.

    Raises
    ------
    SlideError
        It is refused.
    """
    levels = tuple(
        Level(number, level.width, level.height, 1, 1)
        for number, level in enumerate(read_ndpi(path))
        if level.focal_plane == 0
    )
    index = jpeg_ndpi(path, Mock(), levels, tuple(range(len(levels))))
    if isinstance(index, StorageIndex):
        for grids in index.levels:
            if not isinstance(grids, str):
                fuzz_tiff.check_places(grids)


def main() -> int:
    options = fuzz_tiff.options_of(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        seeds = [
            write_ndpi(
                Path(folder) / f"{starts}.ndpi", texture(64, 512), interval=8, levels=(4,), starts=starts
            ).read_bytes()
            for starts in ("both", "low", "none")
        ]
        return fuzz_tiff.attempt(options, "ndpi", seeds, spoil, Path(folder) / "spoilt.ndpi", read)


if __name__ == "__main__":
    sys.exit(main())
