"""The synthetic DICOM slides conform: a validator finds no error, and a strict reader sees the same pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from support.dicom_check import complaints
from support.dicom_factory import How
from support.format_factory import pages_of, write_dicom
from support.slide_factory import texture, write_slide
from tiles.test_jpeg_dicom import HEIGHT, ORGANISATIONS, SIDE, TAGS, WIDTH, dicom, pictures_of, write_svs
from tiles.test_tiles import difference

from stamp_deploy.slide import open_slide

NOT_READ_BY_WSIDICOM = {
    "extended, unpadded", "extended without lengths", "fragments", "fragments, none",
    "fragments, extended without lengths",
}  # fmt: skip
"""It wants both extended tables or neither, lengths of whole items, and a frame in one fragment."""


def by_wsidicom(path: Path, level: int = 0, light: str | None = None) -> NDArray[np.uint8]:
    """The whole of a level, of its middle focal plane and of one optical path: uint8 [height, width, 3]."""
    wsidicom = pytest.importorskip("wsidicom")
    with wsidicom.WsiDicom.open(path.parent) as slide:
        size = slide.levels[level].size
        return np.asarray(slide.read_region((0, 0), level, (size.width, size.height), path=light).convert("RGB"))


def ours(path: Path, level: int = 0) -> NDArray[np.uint8]:
    """The same, as the compiled tiler decodes it."""
    with open_slide(path, route="jpeg-dicom") as slide:
        size = slide.levels[level]
        return slide.read_region(level, 0, 0, size.width, size.height)


@pytest.mark.parametrize("organisation", [name for name in ORGANISATIONS if "concatenation" not in name])
def test_the_header_conforms(tmp_path: Path, organisation: str) -> None:
    """Concatenations are left out: dciodvfy expects all frames of the level in each of their files."""
    path = dicom(tmp_path / "dicom", pictures_of(write_svs(tmp_path))[0], ORGANISATIONS[organisation])
    assert complaints(path) == []


def test_a_series_conforms(tmp_path: Path) -> None:
    pages = pages_of(write_slide(tmp_path / "a.svs", texture(HEIGHT, WIDTH), tile=SIDE, levels=(2, 4)))
    for path in sorted(write_dicom(tmp_path / "dicom", pages).parent.iterdir()):
        assert complaints(path) == []


@pytest.mark.parametrize("organisation", sorted(set(ORGANISATIONS) - NOT_READ_BY_WSIDICOM))
def test_wsidicom_sees_the_same_pixels(tmp_path: Path, organisation: str) -> None:
    path = dicom(tmp_path / "dicom", pictures_of(write_svs(tmp_path))[0], ORGANISATIONS[organisation])
    theirs = by_wsidicom(path, light="2" if organisation == "optical paths" else None)
    assert difference(ours(path), theirs).max() <= 2


@pytest.mark.parametrize("coding", TAGS)
def test_every_coding_is_wsidicoms(tmp_path: Path, coding: str) -> None:
    path = dicom(tmp_path / "dicom", pictures_of(write_svs(tmp_path, coding))[0], How(photometric=TAGS[coding]))
    assert difference(ours(path), by_wsidicom(path)).max() <= 2


def test_every_level_is_wsidicoms(tmp_path: Path) -> None:
    pages = pages_of(write_slide(tmp_path / "a.svs", texture(HEIGHT, WIDTH), tile=SIDE, levels=(2, 4)))
    path = write_dicom(tmp_path / "dicom", pages)
    for level in range(3):
        assert difference(ours(path, level), by_wsidicom(path, level)).max() <= 2


@pytest.mark.parametrize("name", ["camelyon_multiframe_jpeg.dcm", "osp_boxes_0.dcm"])
def test_real_files_are_wsidicoms(data_dir: Path, tmp_path: Path, name: str) -> None:
    """A series is all files of a folder, so each is looked at in a folder of its own."""
    (tmp_path / "slide").mkdir()
    path = tmp_path / "slide" / name
    path.symlink_to(data_dir / "dicom" / name)
    rows = pydicom.dcmread(path, stop_before_pixels=True).TotalPixelMatrixRows
    theirs = by_wsidicom(path)
    with open_slide(path, route="jpeg-dicom", mpp=0.25) as slide:
        found = slide.read_region(0, 0, 0, slide.width, slide.height)
    assert len(found) == rows
    assert difference(found, theirs).max() <= 2
