"""Spoil small DICOM slides at random and open them: a SlideError or an answer, soon and in bounded memory.

    python csrc/fuzz/fuzz_dicom.py --seconds 120 --found FOLDER [--seed N]

What is opened is read, too: every frame that the index names lies in the file, or is damage. Files that make the reader
fail in any other way are kept in FOLDER; the exit status is then 1.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fuzz_tiff import attempt, change, check_places, options_of
from support.dicom_factory import How, Picture, write_level
from support.slide_factory import encode, texture

from stamp_deploy.errors import SlideError
from stamp_deploy.slide.storage.jpeg_dicom import open_jpeg_dicom

SIDE, ACROSS, DOWN = 16, 5, 4
HOWS = (
    How(), How(table="extended"), How(table="none", fragments=2), How(sparse=True), How(sparse=True, undefined=True),
    How(table="extended without lengths", per_frame=True, undefined=True), How(planes=2),
)  # fmt: skip


def spoil(data: bytes, choose: random.Random) -> bytes:
    """A few changes, most of them in the header, the tables of offsets and the headers of items."""
    spoilt = bytearray(data)
    pixels = data.index(b"\xe0\x7f\x10\x00OB")
    places = [i for i in range(len(data)) if data[i : i + 4] in (b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0")]
    for _ in range(choose.randint(1, 5)):
        at = choose.choice((choose.randrange(128, pixels + 80), choose.choice(places) + choose.randrange(8)))
        at = min(at, len(spoilt) - 8)
        if not change(spoilt, at, choose):
            del spoilt[choose.randrange(pixels, len(spoilt)) :]
            spoilt += bytes(16)
    return bytes(spoilt)


def read(path: Path) -> None:
    """Open a slide and decode each of its frames.

    Raises
    ------
    SlideError
        It is refused.
    """
    reader = open_jpeg_dicom(path)
    if isinstance(reader, str):
        raise SlideError(reader)
    try:
        for grids in reader.index.levels:
            assert not isinstance(grids, str)
            check_places(grids)
        for level in reader.levels:
            for y in range(0, min(level.height, 200), SIDE):
                with contextlib.suppress(SlideError):
                    reader.read(level.index, 0, y, min(level.width, 200), SIDE)
    finally:
        reader.close()


def main() -> int:
    options = options_of(__doc__)
    warnings.simplefilter("ignore")
    pixels = texture(SIDE * DOWN, SIDE * ACROSS)
    streams = [
        encode(pixels[y : y + SIDE, x : x + SIDE], "420")
        for y in range(0, SIDE * DOWN, SIDE)
        for x in range(0, SIDE * ACROSS, SIDE)
    ]
    with tempfile.TemporaryDirectory() as folder:
        seeds = []
        for number, how in enumerate(HOWS):
            path = Path(folder) / str(number) / "seed.dcm"
            path.parent.mkdir()
            write_level(path, Picture(SIDE * ACROSS - 3, SIDE * DOWN, SIDE, streams), how)
            seeds.append(path.read_bytes())
        target = Path(folder) / "spoilt" / "spoilt.dcm"
        target.parent.mkdir()
        return attempt(options, "dicom", seeds, spoil, target, read)


if __name__ == "__main__":
    sys.exit(main())
