"""Spoil small Philips and other TIFF with pages inside of pages, and make the index: a SlideError or an answer.

    python csrc/fuzz/fuzz_pages.py --seconds 120 --found FOLDER [--seed N]

Files that make the reader fail in any other way are kept in FOLDER; the exit status is then 1.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from unittest.mock import Mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import fuzz_tiff
from support.codec_factory import write_codec_slide
from support.format_factory import pages_of, write_philips, write_sub_pages
from support.slide_factory import texture, write_slide

from stamp_deploy.errors import SlideError
from stamp_deploy.slide.backends import Level
from stamp_deploy.slide.storage.index import StorageGrid, StorageIndex
from stamp_deploy.slide.storage.jpeg_philips import jpeg_philips
from stamp_deploy.slide.storage.open_tiff import open_codec_tiff
from stamp_deploy.slide.tiff import read_sub_pages

LEVELS = (Level(0, 192, 128, 1, 1), Level(1, 48, 32, 4, 4))


def read(path: Path) -> None:
    """Make the index in each of the ways that a TIFF may be read.

    Raises
    ------
    SlideError
        It is refused by all.
    """
    refused = 0
    for make in (_philips, _inside, _codec):
        try:
            grids = make(path)
        except SlideError:
            refused += 1
            continue
        fuzz_tiff.check_places(grids)
    if refused == 3:
        raise SlideError("is refused", path=path, remedy="copy it again")


def _philips(path: Path) -> list[StorageGrid]:
    return _grids(jpeg_philips(path, Mock(), LEVELS, (0, 1)))


def _inside(path: Path) -> list[StorageGrid]:
    return [page.coded for page in read_sub_pages(path) if isinstance(page.coded, StorageGrid)]


def _codec(path: Path) -> list[StorageGrid]:
    reader = open_codec_tiff(path)
    return [] if isinstance(reader, str) else _grids(reader.index)


def _grids(index: StorageIndex | str) -> list[StorageGrid]:
    levels = () if isinstance(index, str) else index.levels
    return [grid for grids in levels if not isinstance(grids, str) for grid in grids]


def main() -> int:
    options = fuzz_tiff.options_of(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        pages = pages_of(write_slide(Path(folder) / "a.svs", texture(128, 192), tile=64, levels=(4,)))
        seeds = [
            write_philips(Path(folder) / "philips.tiff", pages).read_bytes(),
            write_sub_pages(Path(folder) / "inside.tiff", pages).read_bytes(),
            write_codec_slide(Path(folder) / "codec.tif", texture(128, 192), "j2k", side=64).read_bytes(),
        ]
        return fuzz_tiff.attempt(options, "pages", seeds, fuzz_tiff.spoil, Path(folder) / "spoilt.tiff", read)


if __name__ == "__main__":
    sys.exit(main())
