"""Spoil small Leica SCN files at random, most in their description, and make the index: a SlideError or an answer.

    python csrc/fuzz/fuzz_scn.py --seconds 120 --found FOLDER [--seed N]

Files that make the reader fail in any other way are kept in FOLDER; the exit status is then 1.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from pathlib import Path
from unittest.mock import Mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import fuzz_tiff
from support.format_factory import pages_of, write_scn
from support.slide_factory import texture, write_slide

from stamp_deploy.errors import SlideError
from stamp_deploy.slide.backends import Level
from stamp_deploy.slide.storage.index import StorageIndex
from stamp_deploy.slide.storage.jpeg_scn import check_scn, jpeg_scn

LEVELS = (Level(0, 800, 600, 1, 1), Level(1, 200, 150, 4, 4))
WORDS = (
    b"sizeX", b"offsetX", b"ifd", b"view", b"image", b"dimension", b"collection", b'="', b"</", b"0", b"-1",
    b"99999999999",
)  # fmt: skip


def spoil(data: bytes, choose: random.Random) -> bytes:
    """A few changes of the description, or of the directories."""
    return fuzz_tiff.spoil_record(data, choose, b"scn", WORDS)


def read(path: Path) -> None:
    """Hold it to what it says of itself, and make the index of both levels.

    Raises
    ------
    SlideError
        It is refused.
    """
    with contextlib.suppress(SlideError):
        check_scn(path)
    index = jpeg_scn(path, Mock(), LEVELS, (0, 1))
    if isinstance(index, StorageIndex):
        for grids in index.levels:
            if not isinstance(grids, str):
                fuzz_tiff.check_places(grids)


def main() -> int:
    options = fuzz_tiff.options_of(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        seeds = []
        for number, coding in enumerate(("420", "rgb")):
            svs = write_slide(Path(folder) / f"{number}.svs", texture(128, 192), tile=64, coding=coding, levels=(4,))
            pages = pages_of(svs)
            path = write_scn(Path(folder) / f"{number}.scn", [(0, 64, pages), (400, 300, pages)], size=(800, 600))
            seeds.append(path.read_bytes())
        return fuzz_tiff.attempt(options, "scn", seeds, spoil, Path(folder) / "spoilt.scn", read)


if __name__ == "__main__":
    sys.exit(main())
