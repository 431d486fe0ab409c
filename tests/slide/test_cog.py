"""Cloud-optimised GeoTIFF: read like any pyramid, with masks too, and held against its own record of storage tiles."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from slide.test_contradictions import HEIGHT, WIDTH, pages_for, with_tags
from support.cog_factory import write_cog
from support.format_factory import write_pyramid
from tiles.test_tiles import read_all

from stamp_deploy.errors import COPY_AGAIN, SlideError
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import TileStatus


def exchanged(values: tuple[int, ...]) -> tuple[int, ...]:
    return (values[1], values[0], *values[2:])


def test_directories_come_first_and_each_storage_tile_has_its_length_before_it(tmp_path: Path) -> None:
    """What the tests write is what GDAL writes."""
    path = write_cog(tmp_path / "a.tif", pages_for(tmp_path))
    data = path.read_bytes()
    assert data[16:].startswith(b"GDAL_STRUCTURAL_METADATA_SIZE=")
    with tifffile.TiffFile(path) as tiff:
        first = min(min(page.aspage().dataoffsets) for page in tiff.pages)
        assert all(page.offset < first for page in tiff.pages)
        for page in tiff.pages:
            for offset, size in zip(page.aspage().dataoffsets, page.aspage().databytecounts, strict=True):
                assert int.from_bytes(data[offset - 4 : offset], "little") == size
                assert data[offset + size : offset + size + 4] == data[offset + size - 4 : offset + size]


@pytest.mark.parametrize("with_masks", [False, True])
def test_its_tiles_are_those_of_the_same_streams(tmp_path: Path, with_masks: bool) -> None:
    """OpenSlide takes reduced masks for levels, and cannot read them."""
    path = write_cog(tmp_path / "a.tif", pages_for(tmp_path), with_masks=with_masks)
    with open_slide(path) as slide, open_slide(tmp_path / "source-0.svs") as same:
        assert slide.route.name == "jpeg-tiff"
        assert slide.levels == same.levels
        assert slide.mpp_xy == (0.5, 0.5)
        assert slide.notes == (("it holds masks, which are not read",) if with_masks else ())
        np.testing.assert_array_equal(slide.thumbnail(170), same.thumbnail(170))
    for factor in (1.0, 2.0):
        ours, status, _ = read_all(path, "jpeg-tiff", tile_px=40, target_mpp=0.5 * factor)
        want, _, _ = read_all(tmp_path / "source-0.svs", "jpeg-tiff", tile_px=40, target_mpp=0.5 * factor)
        assert (status == TileStatus.OK).all()
        np.testing.assert_array_equal(ours, want)


def test_a_mask_beside_a_page_that_openslide_cannot_open(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    page = pages_for(tmp_path)[0]
    write_cog(path, [page], with_masks=True)
    with open_slide(path) as slide:
        assert slide.route.name == "jpeg-tiff"
        assert len(slide.levels) == 1


def test_what_it_leaves_out_is_glass(tmp_path: Path) -> None:
    with open_slide(write_cog(tmp_path / "a.tif", pages_for(tmp_path), absent=(3, 4))) as slide:
        assert slide.left_out is not None
        assert slide.left_out.cells.sum() == 2
        assert (slide.read_region(0, 3 * 64, 0, 128, 64) == 255).all()


@pytest.mark.parametrize("page", [0, 1])
@pytest.mark.parametrize("with_masks", [False, True])
def test_an_order_that_is_not_the_records_is_refused(tmp_path: Path, page: int, with_masks: bool) -> None:
    """The picture of two storage tiles that are exchanged looks like a slide, and a pyramid need not show it."""
    path = write_cog(tmp_path / "a.tif", pages_for(tmp_path), with_masks=with_masks)
    with_tags(path, page * (1 + with_masks), TileOffsets=exchanged, TileByteCounts=exchanged)
    with pytest.raises(SlideError, match="do not lie row by row") as caught:
        open_slide(path)
    assert caught.value.remedy == COPY_AGAIN


def test_lengths_that_are_not_the_records_are_refused(tmp_path: Path) -> None:
    path = write_cog(tmp_path / "a.tif", pages_for(tmp_path))
    with pytest.raises(SlideError, match="storage tile 0 of 704 x 512 px has another length"):
        open_slide(with_tags(path, TileByteCounts=lambda v: (v[0] + 40, *v[1:])))


def test_a_record_that_no_longer_holds_says_so(tmp_path: Path) -> None:
    path = write_cog(tmp_path / "a.tif", pages_for(tmp_path), edited=True)
    open_slide(with_tags(path, TileOffsets=exchanged, TileByteCounts=exchanged)).close()


@pytest.mark.parametrize(
    ("stated", "unit", "told"),
    [
        (10_000, 3, ""),
        (20_000, 3, ""),
        (10_000, 2, "2.54"),
        (40_000, 3, "0.25"),
    ],
)
def test_a_level_that_states_another_scale_is_told(tmp_path: Path, stated: int, unit: int, told: str) -> None:
    """Its own scale, or a copy of the full resolution's, is what writers state."""
    path = write_pyramid(tmp_path / "a.tif", pages_for(tmp_path)[:2], level_resolution=((stated, stated), unit))
    with open_slide(path) as slide:
        assert slide.mpp_xy == (0.5, 0.5)
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        want = f"its page of 352 x 256 px states {told} um/px, and the first page 0.5: by their sizes it would be 1"
        assert slide.notes == ((want,) if told else ())


def test_a_level_without_a_unit_is_in_inches(tmp_path: Path) -> None:
    """As the first page is read: TIFF 6.0 says so."""
    path = write_pyramid(tmp_path / "a.tif", pages_for(tmp_path)[:2], level_resolution=((10_000, 10_000), 3))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tag = tiff.pages[1].aspage().tags["ResolutionUnit"]
        tiff.filehandle.seek(tag.offset)
        tiff.filehandle.write(struct.pack(tiff.byteorder + "H", 297))  # PageNumber, of which nothing is read
    with open_slide(path) as slide:
        assert "states 2.54 um/px" in slide.notes[0]
