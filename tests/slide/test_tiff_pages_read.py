"""What is read out of a TIFF's directories, on pages made of numbers: grids, padding, absence, and each refusal."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from support.slide_factory import replace_tiles, texture, write_slide

from stamp_deploy.codecs import Coding
from stamp_deploy.errors import SlideError
from stamp_deploy.slide import tiff as module
from stamp_deploy.slide.backends import Level
from stamp_deploy.slide.jpeg_header import RGB, YCBCR
from stamp_deploy.slide.storage import StorageGrid
from stamp_deploy.slide.tiff import (
    _propagate,
    _pyramid,
    _read_page,
    _shows,
    _stated,
    _why_not,
    read_levels,
    read_pages,
    read_sub_pages,
)
from stamp_deploy.slide.tiff_tags import read_description, read_icc_tag, read_resolution, read_texts


def page(**changes: Any) -> Any:
    """A page of 5 x 3 storage tiles of 32 x 16 px, deflate."""
    given: dict[str, Any] = {
        "imagewidth": 150, "imagelength": 40, "tilewidth": 32, "tilelength": 16, "samplesperpixel": 3,
        "bitspersample": 8, "planarconfig": 1, "compression": 8, "photometric": 2, "predictor": 1, "index": 7,
        "dataoffsets": list(range(100, 115)), "databytecounts": list(range(1, 16)), "jpegtables": None,
        "is_tiled": True, "is_reduced": False,
    }  # fmt: skip
    return SimpleNamespace(**{**given, **changes})


def test_a_page_is_laid_out_in_rows() -> None:
    found = _read_page(page(photometric=2, predictor=2), True)
    assert (found.width, found.height, found.tile_px, found.directory, found.photometric) == (150, 40, (32, 16), 7, 2)
    assert found.stated == frozenset() and found.absent.shape == (3, 5) and not found.absent.any()
    grid = found.coded
    assert isinstance(grid, StorageGrid)
    assert (grid.width, grid.height, grid.tile_width, grid.tile_height) == (150, 40, 32, 16)
    np.testing.assert_array_equal(grid.offsets, np.arange(100, 115).reshape(3, 5))
    np.testing.assert_array_equal(grid.sizes, np.arange(1, 16).reshape(3, 5))
    assert (grid.coding, grid.has_differences, grid.absent_is_glass, grid.tables) == (Coding.DEFLATE, True, True, b"")


def test_lengths_of_0_or_less_are_absent() -> None:
    sizes = [5] * 15
    sizes[7], sizes[11] = 0, -3
    found = _read_page(page(databytecounts=sizes, dataoffsets=[-4, *range(14)], jpegtables=b"tables"), False)
    assert np.flatnonzero(found.absent).tolist() == [7, 11]
    assert isinstance(found.coded, StorageGrid)
    assert found.coded.sizes.ravel().tolist() == [5] * 7 + [0] + [5] * 3 + [0] + [5] * 3
    assert found.coded.offsets[0, 0] == 0 and found.coded.offsets[0, 1] == 0 and found.coded.offsets[2, 4] == 13
    assert found.coded.tables == b"tables" and not found.coded.absent_is_glass and not found.coded.has_differences


def test_a_place_is_absent_where_any_of_its_planes_is() -> None:
    sizes = [1] * 45
    sizes[3] = sizes[15 + 9] = sizes[30 + 3] = 0
    found = _read_page(page(planarconfig=2, databytecounts=sizes), True)
    assert np.flatnonzero(found.absent).tolist() == [3, 9] and found.absent.shape == (3, 5)
    assert found.coded == "its pixels are not 8-bit RGB"


@pytest.mark.parametrize("count", [0, 14, 16, 45])
def test_a_list_of_another_length_marks_nothing(count: int) -> None:
    found = _read_page(page(databytecounts=[0] * count, dataoffsets=[1] * count), True)
    assert found.absent.shape == (1, 1) and not found.absent.any()
    assert found.coded == f"it lists {count} tiles where its size needs 15"


REASONS = [
    ({"compression": 1}, "coded as 1"),
    ({"samplesperpixel": 4}, "not 8-bit RGB"),
    ({"samplesperpixel": 1}, "not 8-bit RGB"),
    ({"bitspersample": 16}, "not 8-bit RGB"),
    ({"planarconfig": 2}, "not 8-bit RGB"),
    ({"photometric": 6}, "photometric tag is 6, neither"),
    ({"photometric": 1}, "photometric tag is 1, neither"),
    ({"compression": 7, "photometric": 8}, "photometric tag is 8, neither"),
    ({"predictor": 3}, "predictor 3"),
    ({"predictor": 0}, "predictor 0"),
    ({"tilewidth": 7}, "7 x 16 px"),
    ({"tilelength": 7}, "32 x 7 px"),
    ({"tilewidth": 16385}, "16385 x 16 px"),
    ({"tilelength": 16385}, "32 x 16385 px"),
    ({"dataoffsets": [1] * 14}, "lists 14 tiles where its size needs 15"),
    ({"databytecounts": [1] * 14}, "where its size needs 15"),
    ({"databytecounts": [1] * 16}, "where its size needs 15"),
    ({"imagewidth": 161}, "lists 15 tiles where its size needs 18"),
    ({"imagelength": 49}, "lists 15 tiles where its size needs 20"),
]


@pytest.mark.parametrize(("change", "words"), REASONS, ids=[str(change)[:40] for change, _ in REASONS])
def test_why_a_page_cannot_be_read_by_storage_tiles(change: dict[str, Any], words: str) -> None:
    assert _why_not(page()) is None
    assert words in str(_why_not(page(**change)))


FITS: list[dict[str, Any]] = [
    {"compression": 7, "photometric": 6}, {"compression": 7, "photometric": 2}, {"compression": 7, "predictor": 3},
    {"predictor": 2}, {"compression": 5}, {"imagewidth": 160, "imagelength": 48}, {"imagewidth": 129},
    {"imagelength": 33}, {"tilewidth": 8, "imagewidth": 40}, {"tilelength": 8, "imagelength": 24},
    {"tilewidth": 16384, "imagewidth": 1, "dataoffsets": [1] * 3, "databytecounts": [1] * 3},
    {"tilelength": 16384, "imagelength": 1, "dataoffsets": [1] * 5, "databytecounts": [1] * 5},
]  # fmt: skip


@pytest.mark.parametrize("change", FITS, ids=str)
def test_pages_that_can_be_read(change: dict[str, Any]) -> None:
    assert _why_not(page(**change)) is None


@pytest.mark.parametrize(
    ("code", "coding", "tag", "colours"),
    [
        (7, Coding.JPEG, 6, YCBCR), (33003, Coding.JPEG_2000, 2, YCBCR), (33005, Coding.JPEG_2000, 6, RGB),
        (34712, Coding.JPEG_2000, 2, RGB), (50002, Coding.JPEG_XL, 2, RGB), (52546, Coding.JPEG_XL, 2, RGB),
        (34927, Coding.WEBP, 2, RGB), (50001, Coding.WEBP, 2, RGB), (8, Coding.DEFLATE, 2, RGB),
        (32946, Coding.DEFLATE, 2, RGB), (5, Coding.LZW, 2, RGB), (34926, Coding.ZSTD, 2, RGB),
        (50000, Coding.ZSTD, 2, RGB),
    ],
)  # fmt: skip
def test_the_codings_of_tiff_by_their_numbers(code: int, coding: Coding, tag: int, colours: int) -> None:
    given = page(compression=code, photometric=tag)
    described = module._describe(given, True)
    assert (described.coding, described.photometric) == (coding, colours)


@pytest.mark.parametrize(
    ("size", "padded", "shown"),
    [
        ((150, 40), False, True), ((149, 40), False, False), ((150, 39), False, False), ((150, 40), True, True),
        ((150 - 63, 40), True, True), ((150 - 64, 40), True, False), ((150, 40 - 31), True, True),
        ((150, 40 - 32), True, False), ((151, 40), True, False), ((150, 41), True, False),
        ((150 - 63, 40 - 31), True, True),
    ],
)  # fmt: skip
def test_a_page_may_be_padded_by_less_than_two_storage_tiles(size: tuple[int, int], padded: bool, shown: bool) -> None:
    assert _shows(_read_page(page(), True), Level(0, *size, 1, 1), padded=padded) == shown


def test_pages_that_are_levels() -> None:
    first, label = page(imagewidth=90), page(imagewidth=99, is_tiled=False, is_reduced=True)
    small, large = page(imagewidth=10, is_reduced=True), page(imagewidth=50, is_reduced=True)
    other, equal = page(imagewidth=80), page(imagewidth=50, is_reduced=True)
    pages = [first, label, small, large, other, equal]
    assert _pyramid(pages, every=True) == [first, small, large, other, equal]
    found = _pyramid(pages, every=False)
    assert [id(one) for one in found] == [id(one) for one in (first, large, equal, small)]
    assert _pyramid([other, page(imagewidth=100)], every=False) == [other]


def stored(absent: Any, sizes: Any = None) -> Any:
    found = _read_page(page(), True)
    grid = module.replace(found, absent=np.array(absent, bool))
    if sizes is None:
        return module.replace(grid, coded="in words")
    sizes = np.array(sizes)
    coded = StorageGrid(sizes.shape[1], sizes.shape[0], 1, 1, 2, b"", np.zeros_like(sizes), sizes, False)
    return module.replace(grid, coded=coded)


def test_a_tile_over_one_that_is_left_out_is_left_out_at_every_coarser_level() -> None:
    finest = np.zeros((8, 6), bool)
    finest[5, 2] = finest[7, 5] = True
    pages = _propagate(
        [stored(finest), stored(np.zeros((4, 2), bool), np.full((4, 2), 7)), stored(np.zeros((2, 1), bool))]
    )
    assert pages[0].absent.tolist() == finest.tolist()
    # rows by twos, columns by threes
    assert np.argwhere(pages[1].absent).tolist() == [[2, 0], [3, 1]]
    assert pages[1].coded.sizes.tolist() == [[7, 7], [7, 7], [0, 7], [7, 0]]
    assert pages[2].absent.tolist() == [[False], [True]] and pages[2].coded == "in words"


def test_what_a_level_itself_leaves_out_stays_and_what_lies_beyond_is_dropped() -> None:
    finest = np.zeros((5, 5), bool)
    finest[4, 4] = finest[0, 4] = True
    coarse = np.zeros((2, 3), bool)
    coarse[1, 0] = True
    (_, marked) = _propagate([stored(finest), stored(coarse)])  # 5 by 2 rounds to 2, 5 by 3 to 2
    assert marked.absent.tolist() == [[False, False, True], [True, False, False]]
    assert not coarse[0, 2]
    assert len(_propagate([stored(finest)])) == 1


class File:
    """Streams by their place, and which were read."""

    def __init__(self, streams: dict[int, bytes]) -> None:
        self.streams, self.at, self.read_sizes = streams, 0, []  # type: ignore[var-annotated]

    def seek(self, place: int) -> None:
        self.at = place

    def read(self, size: int) -> bytes:
        self.read_sizes.append((self.at, size))
        return self.streams[self.at]


def jpeg(*said: int) -> bytes:
    markers = {RGB: b"\xff\xee\x00\x0eAdobe" + bytes(7), YCBCR: b"\xff\xe0\x00\x10JFIF\0" + bytes(9)}
    frame = b"\xff\xc0\x00\x11" + bytes([8, 0, 16, 0, 16, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    return b"\xff\xd8" + b"".join(markers[one] for one in said) + frame


def test_the_first_the_middle_and_the_last_stream_are_asked() -> None:
    file = File({offset: jpeg() for offset in range(100, 115)})
    sizes = [0, *[9] * 13, 100_000]
    given = page(compression=7, parent=SimpleNamespace(filehandle=file), databytecounts=sizes)
    assert _stated(given) == frozenset()
    assert file.read_sizes == [(101, 9), (107, 9), (114, 65_536)]  # of the 14 that are there: 0, 6, 13
    assert _stated(page(parent=SimpleNamespace(filehandle=None))) == frozenset()  # no JPEG
    empty = page(compression=7, databytecounts=[0] * 15, parent=SimpleNamespace(filehandle=None))
    assert _stated(empty) == frozenset()


@pytest.mark.parametrize(
    ("streams", "tag", "expected"),
    [
        ([(), (), ()], 2, set()), ([(RGB,), (), ()], 2, {RGB}), ([(), (), (YCBCR,)], 2, {YCBCR}),
        ([(RGB,), (YCBCR,), (RGB,)], 2, {YCBCR}), ([(YCBCR,), (RGB,), (RGB,)], 2, {YCBCR}),
        ([(RGB,), (RGB,), (YCBCR,)], 6, {RGB}), ([(RGB,), (RGB, YCBCR), ()], 2, {RGB, YCBCR}),
    ],
)  # fmt: skip
def test_streams_that_differ_from_the_tag_count_most(
    streams: list[tuple[int, ...]], tag: int, expected: set[int]
) -> None:
    file = File({100 + i: jpeg(*said) for i, said in enumerate(streams)})
    given = page(
        compression=7, photometric=tag, parent=SimpleNamespace(filehandle=file), dataoffsets=[100, 101, 102],
        databytecounts=[500] * 3,
    )  # fmt: skip
    assert _stated(given) == expected


# Files


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("s") / "a.svs", texture(260, 330), tile=64, levels=(2, 4))


def test_levels_of_a_file_by_their_numbers(slide: Path) -> None:
    levels = [Level(0, 330, 260, 1, 1), Level(1, 165, 130, 2, 2), Level(2, 82, 65, 4, 4)]
    found = read_levels(slide, levels)
    assert [(grid.width, grid.height) for grid in found if isinstance(grid, StorageGrid)] == [
        (330, 260), (165, 130), (82, 65),
    ]  # fmt: skip
    assert found[1].offsets.shape == (3, 3)  # type: ignore[union-attr]
    assert read_levels(slide, levels[1:], [1, 2])[0].width == 165  # type: ignore[union-attr]
    for numbers in ([1], [3], [9]):
        assert read_levels(slide, levels[:1], numbers) == [f"level {numbers[0]} is not one of the file's tiled pages"]
    short = Level(0, 300, 200, 1, 1)
    assert read_levels(slide, [short]) == ["level 0 is not one of the file's tiled pages"]
    (cropped,) = read_levels(slide, [short], vendor="philips")
    assert isinstance(cropped, StorageGrid)
    assert (cropped.width, cropped.height, cropped.offsets.shape) == (300, 200, (4, 5))


def test_a_file_that_changes_is_read_again(slide: Path, tmp_path: Path) -> None:
    path = replace_tiles(slide, tmp_path / "b.svs", lambda n, s: s)
    assert not read_pages(path)[0].absent.any()
    replace_tiles(slide, path, lambda n, s: b"" if n == 8 else s)
    pages = read_pages(path)
    assert np.argwhere(pages[0].absent).tolist() == [[1, 2]]
    assert np.argwhere(pages[1].absent).tolist() == [[0, 1]] and pages[1].coded.sizes[0, 1] == 0  # type: ignore[union-attr]


def plain(path: Path, **more: Any) -> Path:
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((64, 96, 3), np.uint8), photometric="rgb", metadata=None, **more)
    return path


def test_the_scale_of_a_first_page(tmp_path: Path) -> None:
    path = plain(
        tmp_path / "a.tif", resolution=((50_000, 2), (30_000, 1)), resolutionunit=3, description="Grüße".encode()
    )
    found = read_resolution(path)
    assert (found.x, found.y, found.unit, found.description) == (25_000, 30_000, 3, "Grüße")
    assert read_description(path) == "Grüße"
    for tag in ("XResolution", "YResolution"):
        for ratio in ((0, 1), (1, 0)):
            odd = plain(tmp_path / "b.tif", resolution=((7, 1), (7, 1)), resolutionunit=3)
            assert read_resolution(odd).unit == 3
            with tifffile.TiffFile(odd, mode="r+b") as tiff:
                tiff.pages.first.tags[tag].overwrite(ratio)
            assert read_resolution(odd).unit == 0
    bare = plain(tmp_path / "c.tif")
    assert read_description(bare) == "" and read_icc_tag(bare) == b""


def test_a_profile_is_that_of_the_first_tiled_page(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for profile, tile in ((b"label", None), (b"slide", (16, 16)), (b"other", (16, 16))):
            writer.write(np.zeros((32, 32, 3), np.uint8), photometric="rgb", tile=tile, iccprofile=profile)
    assert read_icc_tag(path) == b"slide"
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for profile in (b"first", b"second"):
            writer.write(np.zeros((32, 32, 3), np.uint8), photometric="rgb", iccprofile=profile)
    assert read_icc_tag(tmp_path / "b.tif") == b"first"  # none is tiled
    (tmp_path / "c.tif").write_bytes(b"no TIFF")
    assert read_icc_tag(tmp_path / "c.tif") == b""


def test_texts_of_all_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        xml = [(700, 1, 4, b"<a/>", True)]
        writer.write(
            np.zeros((32, 48, 3), np.uint8), photometric="rgb", metadata=None, description="one", extratags=xml
        )
        writer.write(np.zeros((32, 48, 3), np.uint8), photometric="rgb", metadata=None, tile=(16, 32))
    first, second = read_texts(path)
    assert (first.directory, first.tile_px, first.description, first.xml) == (0, (0, 0), "one", b"<a/>")
    assert (second.directory, second.tile_px, second.description, second.xml) == (1, (32, 16), "", b"")


def inside(path: Path, sizes: list[int], tile: tuple[int, int] | None = (16, 16)) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for i, size in enumerate(sizes):
            picture = np.zeros((size, size, 3), np.uint8)
            writer.write(picture, photometric="rgb", tile=tile, metadata=None, subifds=0 if i else len(sizes) - 1)
    return path


def test_pages_inside_of_the_first_come_finest_first(tmp_path: Path) -> None:
    found = read_sub_pages(inside(tmp_path / "a.tif", [64, 16, 32]))
    assert [page.width for page in found] == [64, 32, 16]
    assert read_sub_pages(inside(tmp_path / "b.tif", [64, 32], None)) == ()
    assert read_sub_pages(plain(tmp_path / "c.tif", tile=(16, 16))) == ()
    assert len(read_sub_pages(inside(tmp_path / "d.tif", [64, *[16] * 64]))) == 65
    assert read_sub_pages(inside(tmp_path / "e.tif", [64, *[16] * 65])) == ()


def test_what_is_no_tiff_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"no TIFF at all")
    for read in (read_pages, read_sub_pages, read_texts, read_resolution, read_description):
        with pytest.raises(SlideError, match="TIFF directories cannot be read") as caught:
            read(tmp_path / "a.tif")
        assert caught.value.path == tmp_path / "a.tif" and caught.value.remedy == "copy or scan the slide again"
        with pytest.raises(SlideError, match="cannot be read: No such file"):
            read(tmp_path / "none.tif")
