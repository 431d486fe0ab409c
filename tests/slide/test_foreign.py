"""Formats that are known and not read: refused in one sentence, with what converts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.format_factory import pages_of, write_philips
from support.slide_factory import texture, write_slide

from stamp_deploy.errors import SlideError
from stamp_deploy.slide import open_slide

CASES = {
    "a.czi": (b"ZISRAWFILE" + bytes(500), "Zeiss CZI", "bfconvert"),
    "renamed.tif": (b"ZISRAWFILE" + bytes(500), "Zeiss CZI", "bfconvert"),
    "a.isyntax": (b'<DataObject ObjectType="DPUfsImport">' + bytes(500), "iSyntax", "isyntax-to-tiff"),
    "renamed": (b'<?xml version="1.0"?><DataObject ObjectType="DPUfsImport">', "iSyntax", "isyntax-to-tiff"),
    "a.KFB": (b"whatever", "KFBio", "KFBio's own converter"),
    "a.sdpc": (b"whatever", "SQRAY", "scanner's software"),
    "a.vsi": (b"II*\0" + bytes(100), "Olympus VSI", "bfconvert"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_what_converts_it(tmp_path: Path, name: str) -> None:
    data, what, remedy = CASES[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SlideError, match=what) as refused:
        open_slide(path)
    assert remedy in refused.value.remedy
    assert refused.value.exit_code == 4


def test_a_philips_tiff_is_none_of_them(tmp_path: Path) -> None:
    """It holds the record by which iSyntax is told."""
    pages = pages_of(write_slide(tmp_path / "a.svs", texture(128, 192), tile=64))
    with open_slide(write_philips(tmp_path / "a.tiff", pages)) as slide:
        assert slide.route.name == "jpeg-philips"
    renamed = tmp_path / "b.kfb"
    renamed.write_bytes((tmp_path / "a.tiff").read_bytes())
    with open_slide(renamed) as slide:
        assert slide.vendor == "philips"
