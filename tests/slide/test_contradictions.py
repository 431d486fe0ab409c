"""OME-TIFF, COG, QPTIFF and BIF that contradict themselves: refused, or read right and told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from support.bif_factory import Area, write_bif
from support.format_factory import QPI, Page, ome_of, pages_of, write_pyramid, write_sub_pages
from support.slide_factory import texture, write_slide

from stamp_deploy.errors import COPY_AGAIN, SlideError, StampError
from stamp_deploy.slide import open_slide

SIDE, HEIGHT, WIDTH = 64, 512, 704
COLUMNS, ROWS = 11, 8
WHOLE: list[Area] = [(0, 0, COLUMNS, ROWS)]
Make = Callable[[Path, list[Page]], Path]


def pages_for(folder: Path, seed: int = 0) -> list[Page]:
    path = folder / f"source-{seed}.svs"
    return pages_of(write_slide(path, texture(HEIGHT, WIDTH, seed), tile=SIDE, coding="422", levels=(2, 4)))


def ome(folder: Path, pages: list[Page]) -> Path:
    return write_sub_pages(folder / "a.ome.tif", pages, mpp=None, description=ome_of(pages[0]))


def cog(folder: Path, pages: list[Page]) -> Path:
    return write_pyramid(folder / "a.tif", pages)


def qptiff(folder: Path, pages: list[Page]) -> Path:
    kinds = ("FullResolution", *["ReducedResolution"] * (len(pages) - 1))
    return write_pyramid(folder / "a.qptiff", pages, descriptions=[QPI.format(kind=kind) for kind in kinds])


def bif(folder: Path, pages: list[Page]) -> Path:
    return write_bif(folder / "a.bif", pages, WHOLE)


FORMATS: dict[str, tuple[Make, int]] = {"ome": (ome, 0), "cog": (cog, 0), "qptiff": (qptiff, 0), "bif": (bif, 1)}
"""Of each who writes it, and the page of level 0."""


def with_tags(path: Path, page: int = 0, inside: int | None = None, **tags: Any) -> Path:
    """The file with other values of a page's tags, or of one inside of it; what can be called changes the old value."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        found = tiff.pages[page].aspage()
        if inside is not None:
            assert found.pages is not None
            found = found.pages[inside].aspage()
        for name, value in tags.items():
            tag = found.tags[name]
            tag.overwrite(value(tag.value) if callable(value) else value)
    return path


def rotated(values: tuple[int, ...]) -> tuple[int, ...]:
    return (*values[1:], values[0])


def doubled(values: tuple[int, ...]) -> tuple[int, ...]:
    """The second row of storage tiles is the first."""
    return (*values[:COLUMNS], *values[:COLUMNS], *values[2 * COLUMNS :])


def short(values: tuple[int, ...]) -> tuple[int, ...]:
    return values[:-3]


TAGS: dict[str, tuple[dict[str, Any], str]] = {
    "twice as wide": ({"ImageWidth": 2 * WIDTH}, "lists 88 storage tiles where its 1408 x 512 px need 176"),
    "turned": ({"ImageWidth": HEIGHT, "ImageLength": WIDTH}, "px"),
    "other storage tiles": (
        {"TileWidth": 128, "TileLength": 32},
        "lists 88 storage tiles where its 704 x 512 px need 96",
    ),
    "fewer places": ({"TileOffsets": short}, "lists 85 storage tiles where its 704 x 512 px need 88"),
    "fewer lengths": (
        {"TileByteCounts": short},
        "places of 88 storage tiles .* and the lengths of 85",
    ),
    "moved on by one": ({"TileOffsets": rotated, "TileByteCounts": rotated}, "levels 1 and 2 agree with each other"),
    "a row twice": ({"TileOffsets": doubled, "TileByteCounts": doubled}, "names 11 storage tiles of level 0 twice"),
}


@pytest.mark.parametrize("format", FORMATS)
def test_sound_slides_are_read(tmp_path: Path, format: str) -> None:
    make, _ = FORMATS[format]
    with open_slide(make(tmp_path, pages_for(tmp_path))) as slide, open_slide(tmp_path / "source-0.svs") as same:
        assert slide.notes == ()
        assert [(level.width, level.height) for level in slide.levels] == [(704, 512), (352, 256), (176, 128)]
        a, b = (one.read_region(0, 0, 0, WIDTH, HEIGHT) for one in (slide, same))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", TAGS)
@pytest.mark.parametrize("format", FORMATS)
def test_what_the_directory_of_level_0_says_must_fit_the_rest(tmp_path: Path, format: str, name: str) -> None:
    make, page = FORMATS[format]
    tags, cause = TAGS[name]
    path = with_tags(make(tmp_path, pages_for(tmp_path)), page, **tags)
    with pytest.raises(SlideError, match=cause) as caught:
        open_slide(path)
    assert caught.value.path == path
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["twice as wide", "fewer places", "fewer lengths"])
def test_so_must_a_page_inside_of_the_first(tmp_path: Path, name: str) -> None:
    tags, _ = TAGS[name]
    path = with_tags(ome(tmp_path, pages_for(tmp_path)), inside=0, **tags)
    with pytest.raises(SlideError, match=r"storage tiles .* px") as caught:
        open_slide(path)
    assert caught.value.remedy == COPY_AGAIN


@pytest.mark.parametrize("format", FORMATS)
def test_levels_that_agree_against_the_full_resolution(tmp_path: Path, format: str) -> None:
    make, _ = FORMATS[format]
    other = pages_for(tmp_path, seed=3)
    with pytest.raises(SlideError, match="agree with each other, and not with its full resolution of 704 x 512 px"):
        open_slide(make(tmp_path, [other[0], *pages_for(tmp_path)[1:]]))


@pytest.mark.parametrize("format", FORMATS)
def test_one_level_that_shows_something_else_is_left_out_and_told(tmp_path: Path, format: str) -> None:
    make, _ = FORMATS[format]
    pages, other = pages_for(tmp_path), pages_for(tmp_path, seed=3)
    with open_slide(make(tmp_path, [pages[0], other[1], pages[2]])) as slide:
        assert [level.width for level in slide.levels] == [704, 176]
        assert any("level 1 (352 x 256 px) shows another picture" in note for note in slide.notes)


def test_two_levels_without_anything_to_see_prove_nothing(tmp_path: Path) -> None:
    """They are left out: an overview that was never written must not count against the slide."""
    pages = pages_for(tmp_path)
    blank = pages_of(
        write_slide(tmp_path / "b.svs", np.full((HEIGHT, WIDTH, 3), 60, np.uint8), tile=SIDE, levels=(2, 4))
    )
    with open_slide(cog(tmp_path, [pages[0], *blank[1:]])) as slide:
        assert len(slide.levels) == 1
        assert len(slide.notes) == 2


@pytest.mark.parametrize("format", ["ome", "cog", "qptiff"])
def test_the_full_resolution_comes_first(tmp_path: Path, format: str) -> None:
    """What the first page says of its scale would count for a larger one."""
    make, _ = FORMATS[format]
    a, b, c = pages_for(tmp_path)
    for order in ([c, b, a], [b, a, c]):
        with pytest.raises(SlideError, match=r"its first page of \d+ x \d+ px is smaller than another") as caught:
            open_slide(make(tmp_path, order))
        assert "full resolution first" in caught.value.remedy


def test_a_larger_page_that_is_not_called_reduced_is_no_less_there(tmp_path: Path) -> None:
    a, b, _ = pages_for(tmp_path)
    with pytest.raises(SlideError, match="smaller than another of 704 x 512"):
        open_slide(write_pyramid(tmp_path / "a.tif", [b, a], are_reduced=False))


def test_several_pictures_of_the_full_size_are_told(tmp_path: Path) -> None:
    page = pages_for(tmp_path)[0]
    with open_slide(write_pyramid(tmp_path / "a.tif", [page] * 3, are_reduced=False)) as slide:
        assert any("3 pictures of its full size: the first is read" in note for note in slide.notes)


@pytest.mark.parametrize("kind", ["Thumbnail", "Overview", "Label", "ReducedResolution", "Doe"])
def test_a_qptiff_that_begins_with_another_picture_is_refused(tmp_path: Path, kind: str) -> None:
    pages = pages_for(tmp_path)
    kinds = (kind, "ReducedResolution", "ReducedResolution")
    path = write_pyramid(tmp_path / "a.qptiff", pages, descriptions=[QPI.format(kind=kind) for kind in kinds])
    with pytest.raises(SlideError, match="of the type") as caught:
        open_slide(path)
    assert "Doe" not in str(caught.value)


# OME-XML against pages


@pytest.mark.parametrize(
    ("old", "new"), [('SizeX="704"', 'SizeX="1408"'), ('SizeX="704" SizeY="512"', 'SizeX="512" SizeY="704"')]
)
def test_ome_xml_of_another_size_is_of_another_picture(tmp_path: Path, old: str, new: str) -> None:
    pages = pages_for(tmp_path)
    said = ome_of(pages[0])
    assert old in said
    path = write_sub_pages(tmp_path / "a.ome.tif", pages, description=said.replace(old, new))
    with pytest.raises(SlideError, match=r"its OME-XML says \d+ x \d+ px, and its full resolution has 704 x 512"):
        open_slide(path)


SECOND = (
    '<Image><Pixels SizeX="704" SizeY="512" PhysicalSizeX="0.25" PhysicalSizeY="0.25">'
    '<TiffData IFD="0"/></Pixels></Image></OME>'
)


def test_microns_are_those_of_the_image_on_the_first_page(tmp_path: Path) -> None:
    pages = pages_for(tmp_path)
    said = ome_of(pages[0]).replace('IFD="0"', 'IFD="1"').replace('SizeX="704"', 'SizeX="99"')
    path = write_sub_pages(tmp_path / "a.ome.tif", pages, mpp=None, description=said.replace("</OME>", SECOND))
    with open_slide(path) as slide:
        assert slide.mpp_xy == (0.25, 0.25)
        assert slide.mpp.source == "ome-xml"


ELSEWHERE = '<TiffData IFD="0"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>'


@pytest.mark.parametrize("tiff_data", ['<TiffData IFD="3"/>', ELSEWHERE])
def test_an_image_on_another_page_or_in_another_file_is_no_evidence(tmp_path: Path, tiff_data: str) -> None:
    pages = pages_for(tmp_path)
    said = re.sub("<TiffData.*?/>", tiff_data, ome_of(pages[0])).replace("<OME ", '<OME UUID="urn:uuid:1" ')
    with pytest.raises(StampError, match="OME-XML PhysicalSize: refused"):
        open_slide(write_sub_pages(tmp_path / "a.ome.tif", pages, mpp=None, description=said))
    with open_slide(write_sub_pages(tmp_path / "b.ome.tif", pages, mpp=1.0, description=said)) as slide:
        assert (slide.mpp_xy, slide.mpp.source) == ((1.0, 1.0), "tiff-resolution")


@pytest.mark.parametrize("tail", ["", "</Pixels>", '<TiffData IFD="0"/>'])
def test_ome_xml_that_is_cut_off_behind_its_image_still_speaks(tmp_path: Path, tail: str) -> None:
    pages = pages_for(tmp_path)
    said = re.sub("<Channel.*", "", ome_of(pages[0])) + tail
    with open_slide(write_sub_pages(tmp_path / "a.ome.tif", pages, mpp=None, description=said)) as slide:
        assert slide.mpp_xy == (0.5, 0.5)


def test_places_of_pages_inside_of_the_first(tmp_path: Path) -> None:
    pages = pages_for(tmp_path)
    for change in (lambda v: (10**9, v[1]), lambda v: (0, v[1]), lambda v: (v[0] + 7, v[1])):
        with pytest.raises(SlideError, match="a page inside of another is not where it should be") as caught:
            open_slide(with_tags(ome(tmp_path, pages), SubIFDs=change))
        assert caught.value.remedy == COPY_AGAIN
    with open_slide(with_tags(ome(tmp_path, pages), SubIFDs=lambda v: v[::-1])) as slide:
        assert [level.width for level in slide.levels] == [704, 352, 176]
    with open_slide(with_tags(ome(tmp_path, pages), SubIFDs=lambda v: (v[0], v[0]))) as slide:
        assert [level.width for level in slide.levels] == [704, 352]
        assert any("no smaller" in note for note in slide.notes)


# storage tiles that name the same bytes


def test_glass_may_be_kept_once(tmp_path: Path) -> None:
    rgb = np.full((HEIGHT, WIDTH, 3), 235, np.uint8)
    rgb[200:400, 200:500] = texture(200, 300)
    pages = pages_of(write_slide(tmp_path / "b.svs", rgb, tile=SIDE, levels=(2,)))

    def once(values: tuple[int, ...]) -> tuple[int, ...]:
        return (*values[:1] * COLUMNS, *values[COLUMNS:])

    with open_slide(with_tags(cog(tmp_path, pages), TileOffsets=once, TileByteCounts=once)) as slide:
        assert len(slide.levels) == 2
        assert slide.route.name == "jpeg-tiff"


def test_a_coarser_level_that_names_tissue_twice_is_refused(tmp_path: Path) -> None:
    def twice(values: tuple[int, ...]) -> tuple[int, ...]:
        return (*values[:6], *values[:6], *values[12:])

    path = with_tags(cog(tmp_path, pages_for(tmp_path)), 1, TileOffsets=twice, TileByteCounts=twice)
    with pytest.raises(SlideError, match="names 6 storage tiles of level 1 twice"):
        open_slide(path)


def test_storage_tiles_that_overlap_are_looked_at_too(tmp_path: Path) -> None:
    path = write_bif(tmp_path / "a.bif", pages_for(tmp_path), WHOLE, overlap=(6, 4))
    with pytest.raises(SlideError, match="names 11 storage tiles of level 0 twice"):
        open_slide(with_tags(path, 1, TileOffsets=doubled, TileByteCounts=doubled))


# the records of a BIF

BIF_RECORDS: dict[str, tuple[list[tuple[str, str]], str]] = {
    "fewer columns": ([('NumCols="11"', 'NumCols="5"')], "has no number"),
    "more columns": ([('NumCols="11"', 'NumCols="12"')], "lies beyond its page of 11 x 8 storage tiles"),
    "fewer rows": ([('NumRows="8"', 'NumRows="7"')], "has no number"),
    "more rows": ([('NumRows="8"', 'NumRows="9"')], "lies beyond its page"),
    "other shape": ([('NumCols="11"', 'NumCols="22"'), ('NumRows="8"', 'NumRows="4"')], "lies beyond its page"),
    "half as wide": ([('NumCols="11"', 'NumCols="8"')], "has no number"),
    "begins further": ([('OriginX="0"', 'OriginX="64"')], "lies beyond its page"),
    "begins lower": ([('OriginY="0"', 'OriginY="64"')], "lies beyond its page"),
    "not scanned": ([('AOIScanned="1"', 'AOIScanned="0"')], "no area was scanned"),
    "no such tile": ([('Tile1="3"', 'Tile1="999"')], "has no number 999"),
    "no neighbours": ([('Tile1="3"', 'Tile1="40"')], "no such neighbours"),
}  # fmt: skip


@pytest.mark.parametrize("names", [("RIGHT", "UP"), ("LEFT", "DOWN")])
@pytest.mark.parametrize("overlap", [(0, 0), (6, 4)])
@pytest.mark.parametrize("name", BIF_RECORDS)
def test_records_of_a_bif_must_fit_its_page(
    tmp_path: Path, names: tuple[str, str], overlap: tuple[int, int], name: str
) -> None:
    """OpenSlide ends the process on some of them."""
    change, cause = BIF_RECORDS[name]
    path = tmp_path / "a.bif"
    write_bif(path, pages_for(tmp_path), WHOLE, directions=names, overlap=overlap, change=change)
    with pytest.raises(SlideError, match=f"storage tiles is damaged: .*{cause}") as caught:
        open_slide(path)
    assert caught.value.remedy == COPY_AGAIN


def test_areas_of_a_bif_share_no_storage_tile(tmp_path: Path) -> None:
    for number, areas in enumerate(([(0, 0, 6, 8), (4, 0, 7, 8)], [(0, 0, 11, 8), (3, 3, 2, 2)])):
        with pytest.raises(SlideError, match="shares storage tiles with another"):
            open_slide(write_bif(tmp_path / f"{number}.bif", pages_for(tmp_path), areas))
    with open_slide(write_bif(tmp_path / "b.bif", pages_for(tmp_path), [(0, 0, 4, 8), (4, 0, 7, 8)])) as slide:
        assert slide.route.name == "jpeg-bif"


@pytest.mark.parametrize(
    ("page", "old", "new"), [(1, "mag=20", "mag=40"), (2, "mag=10", "mag=7"), (3, "mag=5", "mag=2")]
)
def test_magnifications_of_a_bif_are_those_of_its_pages(tmp_path: Path, page: int, old: str, new: str) -> None:
    path = bif(tmp_path, pages_for(tmp_path))
    with pytest.raises(SlideError, match="by its magnification"):
        open_slide(with_tags(path, page, ImageDescription=lambda text: text.replace(old, new)))


def test_a_level_of_a_bif_that_is_turned_is_refused(tmp_path: Path) -> None:
    path = with_tags(bif(tmp_path, pages_for(tmp_path)), 2, ImageWidth=256, ImageLength=384)
    with pytest.raises(SlideError, match="level 1 has 256 x 384 px, and is reduced by 2"):
        open_slide(path)
