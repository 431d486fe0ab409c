"""Spoil small Ventana BIF files at random, most in their records, and open them: a SlideError or an answer.

    python csrc/fuzz/fuzz_bif.py --seconds 120 --found FOLDER [--seed N]

Files that make the reader fail in any other way are kept in FOLDER; the exit status is then 1.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import fuzz_tiff
from support.bif_factory import write_bif
from support.format_factory import pages_of
from support.slide_factory import texture, write_slide

from stamp_deploy.errors import SlideError
from stamp_deploy.slide.storage.jpeg_bif import open_bif

WORDS = (
    b"NumRows", b"OriginX", b"Pos-X", b"Overlap", b"AOIScanned", b"Direction", b'="', b"</", b"0", b"-1", b"nan",
    b"99999999999",
)  # fmt: skip


def spoil(data: bytes, choose: random.Random) -> bytes:
    """A few changes of the records, or of the directories."""
    return fuzz_tiff.spoil_record(data, choose, b"EncodeInfo", WORDS)


def read(path: Path) -> None:
    """Open the slide and read a region of each level.

    Raises
    ------
    SlideError
        It is refused.
    """
    reader = open_bif(path)
    if isinstance(reader, str):
        return
    try:
        for level in reader.levels:
            try:
                reader.read(level.index, 10, 20, 30, 30)
            except SlideError:
                continue  # a storage tile that cannot be decoded
    finally:
        reader.close()


def main() -> int:
    options = fuzz_tiff.options_of(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        seeds = []
        svs = write_slide(Path(folder) / "a.svs", texture(128, 192), tile=64, levels=(2,))
        for number, overlap in enumerate(((0, 0), (4, 2))):
            path = write_bif(
                Path(folder) / f"{number}.bif",
                pages_of(svs),
                [(0, 0, 3, 2)],
                overlap=overlap,
                directions=("LEFT", "UP"),
            )
            seeds.append(path.read_bytes())
        return fuzz_tiff.attempt(options, "bif", seeds, spoil, Path(folder) / "spoilt.bif", read)


if __name__ == "__main__":
    sys.exit(main())
