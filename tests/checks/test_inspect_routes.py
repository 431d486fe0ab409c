"""What inspect says of the route: the provider, the speed, and why not the compiled tiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile
from support.format_factory import pages_of, write_dicom, write_philips, write_scn
from support.slide_factory import texture, write_slide

from stamp_deploy.checks.inspect import describe


@pytest.mark.parametrize("kind", ["tiff", "dicom", "philips", "scn"])
def test_a_fast_slide_names_its_provider(tmp_path: Path, kind: str) -> None:
    svs = write_slide(tmp_path / "a.svs", texture(200, 300), tile=64)
    pages = pages_of(svs)
    path = {
        "tiff": lambda: svs,
        "dicom": lambda: write_dicom(tmp_path / "dicom", pages),
        "philips": lambda: write_philips(tmp_path / "a.tiff", pages),
        "scn": lambda: write_scn(tmp_path / "a.scn", [(64, 0, pages)], size=(400, 200)),
    }[kind]()
    found = describe(path, mpp=None, target_mpp=0.5, tile_px=64)
    assert found.to_dict()["route"]["name"] == f"jpeg-{kind}"
    assert found.to_dict()["route"]["compiled"] is True
    assert f"route     jpeg-{kind}: " in found.to_text()
    assert "fast: each storage tile is decoded once" in found.to_text()


def test_a_slow_slide_says_why(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, texture(200, 300), tile=(64, 64), compression="packbits", photometric="rgb", metadata=None)
    found = describe(path, mpp=0.5, target_mpp=0.5, tile_px=64)
    assert found.to_dict()["route"]["compiled"] is False
    assert "route     openslide: its tiles are coded as PACKBITS" in found.to_text()
    assert "slow: openslide reads a region for each tile, because of the reason above" in found.to_text()


def test_a_slide_of_another_coding_is_between(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, texture(200, 300), tile=(64, 64), compression="deflate", photometric="rgb", metadata=None)
    found = describe(path, mpp=0.5, target_mpp=0.5, tile_px=64)
    route = found.to_dict()["route"]
    assert (route["name"], route["by_storage"], route["compiled"]) == ("codec-tiff", True, False)
    assert "storage tiles of deflate, each decoded once" in found.to_text()
    assert "between: each storage tile is decoded once" in found.to_text()
