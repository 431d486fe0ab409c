"""Philips and SCN through the compiled tiler: OpenSlide's pixels, and those of the same streams in an SVS."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from support.format_factory import QPI, Page, pages_of, write_page, write_philips, write_scn, write_sub_pages
from support.slide_factory import replace_tiles, texture, write_slide
from tiles.test_tiles import difference, read_all

from stamp_deploy.errors import SlideError
from stamp_deploy.slide import open_slide
from stamp_deploy.slide.storage.jpeg_scn import read_areas
from stamp_deploy.tiles import TileStatus

SIDE, HEIGHT, WIDTH = 64, 512, 704
CODINGS = ("420", "422", "444", "rgb")


def pages_for(folder: Path, coding: str = "420", levels: tuple[int, ...] = (2, 8), seed: int = 0) -> list[Page]:
    return pages_of(svs_of(folder, coding, levels, seed))


def svs_of(folder: Path, coding: str = "420", levels: tuple[int, ...] = (2, 8), seed: int = 0) -> Path:
    picture = texture(HEIGHT, WIDTH, seed)
    return write_slide(folder / f"{coding}-{seed}.svs", picture, tile=SIDE, coding=coding, levels=levels)


@pytest.mark.parametrize("coding", CODINGS)
def test_philips_is_the_svs_and_openslides(tmp_path: Path, coding: str) -> None:
    svs = svs_of(tmp_path, coding)
    path = write_philips(tmp_path / "slide.tiff", pages_of(svs))
    for factor in (1.0, 1.3, 2.0, 4.0):
        want, _, _ = read_all(svs, "jpeg-tiff", tile_px=44, target_mpp=0.5 * factor)
        ours, status, _ = read_all(path, "jpeg-philips", tile_px=44, target_mpp=0.5 * factor)
        assert (status == TileStatus.OK).all()
        np.testing.assert_array_equal(ours, want)
    theirs, _, _ = read_all(path, "openslide", tile_px=44, target_mpp=0.5)
    ours, _, _ = read_all(path, "jpeg-philips", tile_px=44, target_mpp=0.5)
    assert difference(ours, theirs).max() <= 1
    with open_slide(path) as slide:
        assert slide.route.name == "jpeg-philips"
        assert slide.mpp_xy == (0.5, 0.5)


@pytest.mark.parametrize("route", [None, "openslide"])
def test_a_padded_philips_level_lies_where_its_record_says(tmp_path: Path, route: str | None) -> None:
    """Level 2 of 88 x 64 px is kept in a page of 128 x 64: its size would say 1/5.5, and the record says 1/8."""
    path = write_philips(tmp_path / "slide.tiff", pages_for(tmp_path))
    with tifffile.TiffFile(path) as tiff:
        assert [page.shape[1] for page in tiff.pages] == [704, 384, 128]
    with open_slide(path, route=route) as slide, open_slide(svs_of(tmp_path)) as same:
        assert [(level.width, level.height) for level in slide.levels] == [(704, 512), (352, 256), (88, 64)]
        assert [level.downsample_x for level in slide.levels] == [1, 2, 8]
        for max_px in (88, 60):
            picture = slide.thumbnail(max_px)
            slide._thumbnail = None
            assert difference(picture, same.thumbnail(max_px)).mean() < 1
            same._thumbnail = None


def test_what_philips_leaves_out_is_glass_by_both_routes(tmp_path: Path) -> None:
    path = write_philips(tmp_path / "whole.tiff", pages_for(tmp_path))
    holes = replace_tiles(path, tmp_path / "holes.tiff", lambda n, s: b"" if n in (0, 13, 14) else s)
    ours, status, tiles = read_all(holes, "jpeg-philips", tile_px=SIDE, target_mpp=0.5)
    theirs, _, _ = read_all(holes, "openslide", tile_px=SIDE, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    assert difference(ours, theirs).max() <= 1
    number = tiles.coords[:, 1] // SIDE * 11 + tiles.coords[:, 0] // SIDE
    assert (ours[np.isin(number, (0, 13, 14))] == 255).all()
    with open_slide(holes) as slide:
        assert slide.left_out is not None
        np.testing.assert_array_equal(np.flatnonzero(slide.left_out.cells), (0, 13, 14))


@pytest.mark.parametrize("format", ["philips", "scn"])
def test_damage_stays_where_it_is(tmp_path: Path, format: str) -> None:
    pages = pages_for(tmp_path)
    if format == "philips":
        path, page = write_philips(tmp_path / "whole.tiff", pages), 0
    else:
        path, page = write_scn(tmp_path / "whole.scn", [(0, 0, pages)], size=(WIDTH + SIDE, HEIGHT)), 1
    spoilt = tmp_path / f"spoilt{path.suffix}"
    replace_tiles(path, spoilt, lambda n, s: s[: len(s) // 3] if n == 5 else s, page)
    _, status, tiles = read_all(spoilt, f"jpeg-{format}", tile_px=SIDE, target_mpp=0.5)
    bad = (tiles.coords[:, 0] == 5 * SIDE) & (tiles.coords[:, 1] == 0)
    np.testing.assert_array_equal(status == TileStatus.CORRUPT, bad)


@pytest.mark.parametrize("format", ["philips", "scn"])
def test_the_streams_colours_count(tmp_path: Path, format: str) -> None:
    """RGB streams under a tag that says YCbCr: OpenSlide would show them green."""
    svs = svs_of(tmp_path, "rgb")
    pages = pages_of(svs)
    if format == "philips":
        path = write_philips(tmp_path / "slide.tiff", pages)
    else:
        path = write_scn(tmp_path / "slide.scn", [(0, 0, pages)], size=(WIDTH + SIDE, HEIGHT))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for page in tiff.pages:
            page.tags["PhotometricInterpretation"].overwrite(6)
    with open_slide(path, mpp=0.5) as slide, open_slide(svs) as same:
        assert any("read as the streams say" in note for note in slide.notes)
        region = slide.read_region(0, 40, 40, 200, 200)
        np.testing.assert_array_equal(region, same.read_region(0, 40, 40, 200, 200))
    ours, _, tiles = read_all(path, f"jpeg-{format}", tile_px=SIDE, target_mpp=0.5)
    want, _, also = read_all(svs, "jpeg-tiff", tile_px=SIDE, target_mpp=0.5)
    at = {tuple(corner): i for i, corner in enumerate(tiles.coords.tolist())}
    for i, corner in enumerate(also.coords.tolist()):
        np.testing.assert_array_equal(ours[at[tuple(corner)]], want[i])


AREAS = ((128, 64), (1024, 640))


def two_areas(folder: Path, coding: str = "422") -> tuple[Path, list[list[Page]]]:
    pages = [pages_for(folder, coding, (4,), seed) for seed in (1, 2)]
    areas = [(x, y, own) for (x, y), own in zip(AREAS, pages, strict=True)]
    return write_scn(folder / "slide.scn", areas, size=(1920, 1280)), pages


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_areas_of_an_scn_are_openslides(tmp_path: Path, coding: str, threads: int) -> None:
    path, _ = two_areas(tmp_path, coding)
    ours, status, _ = read_all(path, "jpeg-scn", tile_px=80, target_mpp=0.5, threads=threads)
    theirs, _, _ = read_all(path, "openslide", tile_px=80, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    assert difference(ours, theirs).max() <= 1
    glass = (ours == 255).all(axis=(1, 2, 3))
    assert glass.any()
    assert not glass.all()


@pytest.mark.parametrize("factor", [1.0, 2.0, 4.0])
def test_an_area_is_the_slide_of_its_own_streams(tmp_path: Path, factor: float) -> None:
    path, _ = two_areas(tmp_path)
    span = round(32 * factor)
    (x0, y0) = AREAS[1]
    ours, status, tiles = read_all(path, "jpeg-scn", tile_px=32, target_mpp=0.5 * factor)
    want, _, also = read_all(tmp_path / "422-2.svs", "jpeg-tiff", tile_px=32, target_mpp=0.5 * factor)
    assert (status == TileStatus.OK).all()
    at = {tuple(corner): i for i, corner in enumerate(also.coords.tolist())}
    compared = 0
    for i, (x, y) in enumerate(tiles.coords.tolist()):
        inside = x >= x0 and y >= y0 and x + span <= x0 + WIDTH and y + span <= y0 + HEIGHT
        if inside and (x - x0, y - y0) in at:
            np.testing.assert_array_equal(ours[i], want[at[x - x0, y - y0]])
            compared += 1
    assert compared > 3


def test_where_the_file_states_fluorescence_it_is_refused(tmp_path: Path) -> None:
    path = write_scn(tmp_path / "slide.scn", [(64, 64, pages_for(tmp_path))], size=(1024, 1024), light="fluorescence")
    with pytest.raises(SlideError):
        open_slide(path)


def test_areas_that_overlap_are_left_to_openslide(tmp_path: Path) -> None:
    pages = pages_for(tmp_path)
    path = write_scn(tmp_path / "slide.scn", [(64, 64, pages), (500, 300, pages)], size=(1920, 1280))
    with open_slide(path) as slide:
        assert slide.route.name == "openslide"
        assert "overlap" in slide.route.reason


@pytest.mark.parametrize(
    "change",
    [
        lambda xml: xml[: len(xml) // 2],
        lambda xml: xml.replace("sizeX=", "sizeZ="),
        lambda xml: xml.replace('offsetX="64000"', 'offsetX="many"'),
        lambda xml: re.sub(r"<pixels.*?</pixels>", "", xml),
        lambda xml: '<!DOCTYPE x [<!ENTITY a "b">]>' + xml[xml.index("<scn") :],
        lambda xml: xml.replace("<collection", "<other").replace("</collection", "</other"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    path, _ = two_areas(tmp_path)
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.pages[0].description
    assert len(read_areas(xml, path)) == 2
    with pytest.raises(SlideError, match="description"):
        read_areas(change(xml), path)


def test_real_scn_of_two_areas(data_dir: Path) -> None:
    path = data_dir / "cases" / "18-scn-bounds" / "two-areas.scn"
    ours, status, _ = read_all(path, "jpeg-scn", tile_px=64, target_mpp=0.5)
    theirs, _, _ = read_all(path, "openslide", tile_px=64, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    assert difference(ours, theirs).max() <= 1


def test_a_brightfield_qptiff_is_read_fast(tmp_path: Path) -> None:
    """Full resolution, a thumbnail in strips, reduced pages: a TIFF like others, by its own resolution."""
    svs = svs_of(tmp_path, levels=(2, 4))
    first, *others = pages_of(svs)
    path = tmp_path / "slide.qptiff"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        scale = {"resolution": (20000, 20000), "resolutionunit": 3}
        write_page(writer, first, description=QPI.format(kind="FullResolution"), **scale)
        thumbnail = np.full((40, 60, 3), 200, np.uint8)
        writer.write(thumbnail, photometric="rgb", compression="jpeg", rowsperstrip=40, subfiletype=1, metadata=None)
        for page in others:
            write_page(writer, page, description=QPI.format(kind="ReducedResolution"), subfiletype=1)
    with open_slide(path) as slide, open_slide(svs) as same:
        assert slide.route.name == "jpeg-tiff"
        assert slide.levels == same.levels
        assert slide.mpp_xy == (0.5, 0.5)
    for factor in (1.0, 2.0, 3.0):
        ours, status, _ = read_all(path, "jpeg-tiff", tile_px=40, target_mpp=0.5 * factor)
        want, _, _ = read_all(svs, "jpeg-tiff", tile_px=40, target_mpp=0.5 * factor)
        assert (status == TileStatus.OK).all()
        np.testing.assert_array_equal(ours, want)


def test_a_fluorescence_qptiff_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.qptiff"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for channel in range(3):
            writer.write(
                texture(256, 256, channel)[..., 0], tile=(64, 64), photometric="minisblack", compression="lzw",
                description=QPI.format(kind="FullResolution"), metadata=None,
            )  # fmt: skip
    with pytest.raises(SlideError, match="grey channels"):
        open_slide(path, mpp=0.5)


@pytest.mark.parametrize("coding", CODINGS)
def test_levels_inside_of_a_page_are_read(tmp_path: Path, coding: str) -> None:
    """As OME-TIFF keeps them (SubIFDs): OpenSlide sees the first level alone."""
    svs = svs_of(tmp_path, coding, (2, 4))
    path = write_sub_pages(tmp_path / "slide.ome.tif", pages_of(svs))
    with open_slide(path) as slide, open_slide(svs) as same, open_slide(path, route="openslide") as theirs:
        assert len(theirs.levels) == 1
        assert slide.route.name == "jpeg-tiff"
        assert slide.levels == same.levels
        assert slide.mpp_xy == (0.5, 0.5)
        assert slide.notes == ()
        np.testing.assert_array_equal(slide.thumbnail(170), same.thumbnail(170))
    for factor in (1.0, 2.0, 3.0):
        ours, status, _ = read_all(path, "jpeg-tiff", tile_px=40, target_mpp=0.5 * factor)
        want, _, _ = read_all(svs, "jpeg-tiff", tile_px=40, target_mpp=0.5 * factor)
        assert (status == TileStatus.OK).all()
        np.testing.assert_array_equal(ours, want)


def test_what_lies_inside_of_a_page_and_shows_something_else_is_no_level(tmp_path: Path) -> None:
    first, *_ = pages_for(tmp_path)
    other = pages_for(tmp_path, seed=3)[1]
    with open_slide(write_sub_pages(tmp_path / "slide.tif", [first, other])) as slide:
        assert len(slide.levels) == 1
        assert any("another picture" in note for note in slide.notes)


def test_a_hole_inside_of_a_page_is_told(tmp_path: Path) -> None:
    path = write_sub_pages(tmp_path / "slide.tif", pages_for(tmp_path))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tags = tiff.pages[0].pages[0].tags
        sizes = list(tags["TileByteCounts"].value)
        sizes[7] = 0
        tags["TileByteCounts"].overwrite(sizes)
    with open_slide(path) as slide:
        assert slide.left_out is not None
        assert slide.left_out.cells.sum() == 4  # storage tiles of level 0 under the one of level 1
        assert (slide.read_region(1, 2 * SIDE, 2 * SIDE, SIDE, SIDE) == 255).all()


def rewritten(path: Path, change: Callable[[str], str]) -> Path:
    """The SCN with another description."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tag = tiff.pages[0].tags["ImageDescription"]
        before, after = tag.value, change(tag.value)
        assert before != after
        tag.overwrite(after)
    return path


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda xml: xml.replace('ifd="1"', 'ifd="9"'), "there is no page 9"),
        (lambda xml: xml.replace('ifd="1"', 'ifd="2"'), r"page 2 has \d+ x \d+ px, not"),
        (lambda xml: xml.replace('ifd="1"', 'ifd="3"'), "another picture is page 3, too"),
        (lambda xml: xml.replace('ifd="4"', 'ifd=" 02"'), "another picture is page 2, too"),
        (
            lambda xml: xml.replace(
                f'sizeX="{WIDTH}" sizeY="{HEIGHT}" r="0"', f'sizeX="{WIDTH}" sizeY="{HEIGHT - 1}" r="0"'
            ),
            "px, not",
        ),
        (lambda xml: xml.replace(f'sizeX="{WIDTH * 500}"', f'sizeX="{WIDTH * 600}"'), "no picture of an area"),
        (lambda xml: re.sub(r'offsetX="[1-9]\d*"', 'offsetX="-500"', xml, count=1), "beyond the glass"),
        (lambda xml: re.sub(r'offsetY="[1-9]\d*"', 'offsetY="9000000"', xml, count=1), "beyond the glass"),
    ],
)
def test_an_scn_that_contradicts_itself_is_refused(tmp_path: Path, change: Callable[[str], str], cause: str) -> None:
    path, _ = two_areas(tmp_path)
    open_slide(path).close()
    with pytest.raises(SlideError, match=cause) as caught:
        open_slide(rewritten(path, change))
    assert "scan the slide again" in caught.value.remedy
