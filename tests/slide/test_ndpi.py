"""Hamamatsu NDPI: the pixels of its streams, and what is damaged is refused or counted, never white and scored."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import imagecodecs
import numpy as np
import pytest
import tifffile
from support.ndpi_factory import (
    FLOAT,
    FOCAL_PLANE,
    LONG,
    MCU,
    SIGNED,
    SOURCE_LENS,
    STARTS,
    STARTS_HIGH,
    Cut,
    cut_stream,
    resized,
    write_cuts,
    write_ndpi,
)
from support.slide_factory import encode, texture
from tiles.test_tiles import difference, read_all

from stamp_deploy.errors import SlideError
from stamp_deploy.slide import ndpi, open_slide
from stamp_deploy.slide.jpeg_header import RGB as RGB_COLOURS
from stamp_deploy.slide.jpeg_header import YCBCR
from stamp_deploy.slide.ndpi import NdpiLevel, read_ndpi
from stamp_deploy.slide.storage.index import StorageGrid
from stamp_deploy.slide.storage.jpeg_ndpi import grid_of, jpeg_ndpi
from stamp_deploy.tiles import TileStatus

RGB = texture(256, 1024)
ROUTES = ("openslide", "jpeg-ndpi")
INTERVAL, SIDE = 16, 256
"""Blocks of a restart interval, and its width, pixels."""


@pytest.fixture(scope="module")
def cut() -> Cut:
    return cut_stream(RGB, interval=INTERVAL)


@pytest.mark.parametrize("starts", ["both", "low", "none"])
@pytest.mark.parametrize("coding", ["444", "422"])
def test_levels_and_pixels_are_those_of_the_streams(tmp_path: Path, coding: str, starts: str) -> None:
    cut = cut_stream(RGB, interval=INTERVAL if coding == "422" else 2 * INTERVAL, coding=coding)
    small = np.ascontiguousarray(RGB[::4, ::4])
    coarse = cut_stream(small, interval=256 // MCU[coding][0], coding=coding)
    path = write_cuts(tmp_path / "a.ndpi", [cut, coarse], starts=starts)
    want = imagecodecs.jpeg8_decode(cut.stream)
    with open_slide(path) as slide:
        assert slide.vendor == "hamamatsu"
        assert slide.mpp_xy == (0.5, 0.5)
        sizes = [(level.width, level.height) for level in slide.levels]
        assert sizes[0] == (1024, 256)
        assert (256, 64) in sizes
        seen = slide.read_region(0, 0, 0, 1024, 256)
        # between two intervals readers interpolate colours each by itself
        inner = np.abs((np.arange(1024) + SIDE // 2) % SIDE - SIDE // 2) > 2
        assert difference(seen[:, inner], want[:, inner]).max() <= 1
        assert difference(seen, want).max() <= 20
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ndpi
        assert difference(tiff.pages[0].asarray()[:, inner], want[:, inner]).max() <= 1
    for route in ROUTES:
        ours, status, tiles = read_all(path, route, tile_px=64, target_mpp=0.5)
        assert (status == TileStatus.OK).all()
        for pixels, (x, y) in zip(ours, tiles.coords.tolist(), strict=True):
            assert difference(pixels, seen[y : y + 64, x : x + 64]).max() <= 1


@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0, 4.0])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("coding", ["444", "422"])
def test_the_compiled_tiler_shows_what_openslide_shows(
    tmp_path: Path, coding: str, threads: int, factor: float
) -> None:
    """OpenSlide reduces each interval by itself, too: where it does, they agree to the last bit or nearly."""
    path = write_ndpi(tmp_path / "a.ndpi", RGB, interval=256 // MCU[coding][0], coding=coding, levels=(4,))
    ours, status, tiles = read_all(path, "jpeg-ndpi", tile_px=40, target_mpp=0.5 * factor, threads=threads)
    theirs, _, _ = read_all(path, "openslide", tile_px=40, target_mpp=0.5 * factor)
    assert (status == TileStatus.OK).all()
    assert len(tiles) > 3
    error = difference(ours, theirs)
    assert error.mean() <= (0.3 if factor == 1.3 else 0.05)
    assert error.max() <= (20 if factor == 1.3 else 1)


def test_the_picture_of_the_whole_glass_is_no_level(tmp_path: Path, cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody scores it, so what is wrong with it does not keep the slide out."""
    glass = cut_stream(np.full((40, 120, 3), 235, np.uint8), interval=5, coding="444")
    stream = replace(glass, intervals=glass.intervals[:-1]).stream
    monkeypatch.setattr("support.ndpi_factory.encode", lambda *given: stream)
    path = write_cuts(tmp_path / "a.ndpi", [cut])
    assert [(level.width, level.height) for level in read_ndpi(path)] == [(1024, 256)]
    with open_slide(path) as slide:
        assert slide.route.name == "jpeg-ndpi"


def test_only_the_focal_plane_that_openslide_shows_is_read(tmp_path: Path, cut: Cut) -> None:
    """A stack of planes has levels of one size; the others show other pixels."""
    other = cut_stream(np.ascontiguousarray(255 - RGB), interval=INTERVAL)
    path = write_cuts(tmp_path / "a.ndpi", [cut, other])
    data = bytearray(path.read_bytes())
    entry = struct.pack("<HHIi", FOCAL_PLANE, SIGNED, 1, 0)
    at = data.index(entry, data.index(entry) + 1)  # of the second directory
    data[at : at + 12] = struct.pack("<HHIi", FOCAL_PLANE, SIGNED, 1, 300)
    path.write_bytes(data)
    assert [level.focal_plane for level in read_ndpi(path)] == [0, 300]
    want = imagecodecs.jpeg8_decode(cut.stream)
    for route in ROUTES:
        ours, status, tiles = read_all(path, route, tile_px=64, target_mpp=0.5)
        assert (status == TileStatus.OK).all()
        for pixels, (x, y) in zip(ours, tiles.coords.tolist(), strict=True):
            assert difference(pixels, want[y : y + 64, x : x + 64]).mean() < 2


@pytest.mark.parametrize("chunk", [7, 1000, 4097])
def test_markers_are_found_wherever_a_piece_of_the_file_ends(
    tmp_path: Path, cut: Cut, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """A level without a list is read in pieces, and a marker of two bytes may lie across two of them."""
    monkeypatch.setattr(ndpi, "_CHUNK", chunk)
    (level,) = read_ndpi(write_cuts(tmp_path / "a.ndpi", [cut], starts="none"))
    np.testing.assert_array_equal(level.places, np.array(cut.starts) + 12)
    assert level.end == 12 + len(cut.stream)


def test_only_restart_markers_count() -> None:
    """Of all that may follow a byte 255; and none lies across the end."""
    data = bytes(byte for second in range(256) for byte in (0xFF, second)) + b"\xff"
    places, numbers = ndpi._markers(io.BytesIO(data), 0, len(data))
    np.testing.assert_array_equal(places, 2 * np.arange(0xD0, 0xD8))
    np.testing.assert_array_equal(numbers, np.arange(8))


def test_another_file_of_the_same_name_is_read_anew(tmp_path: Path, cut: Cut) -> None:
    path = write_cuts(tmp_path / "a.ndpi", [cut])
    assert [level.width for level in read_ndpi(path)] == [1024]
    write_cuts(tmp_path / "b.ndpi", [cut_stream(RGB[:, :512], interval=INTERVAL)]).replace(path)
    assert [level.width for level in read_ndpi(path)] == [512]


def test_levels_that_are_not_cut_are_left_to_openslide(tmp_path: Path) -> None:
    whole = encode(RGB, "422")
    path = write_cuts(tmp_path / "a.ndpi", [Cut(1024, 256, whole[:-2], [b""])])
    with open_slide(path) as slide:
        assert slide.route.name == "openslide"
        assert "not cut into restart intervals" in slide.route.reason
        assert difference(slide.read_region(0, 0, 0, 1024, 256), imagecodecs.jpeg8_decode(whole)).max() <= 1


def test_a_vms_is_left_to_openslide() -> None:
    reason = jpeg_ndpi(Path("a.vms"), Mock(), (), ())
    assert isinstance(reason, str)
    assert "VMS" in reason
    assert read_ndpi(Path("a.vms")) == read_ndpi(Path("a.VMU")) == ()


@pytest.mark.parametrize("stated", [0xC2, 0xC9, 0xCC])
def test_a_kind_of_jpeg_that_cannot_be_cut_has_no_index(cut: Cut, stated: int) -> None:
    at = cut.head.index(b"\xff\xc0")
    head = cut.head[: at + 1] + bytes([stated]) + cut.head[at + 2 :]
    level = NdpiLevel(1024, 256, 0, 256, 8, head, np.arange(128), 160)
    assert grid_of(level) == "its restart intervals cannot be read one by one"
    assert isinstance(grid_of(replace(level, head=cut.head)), StorageGrid)
    wide = replace(level, head=cut.head, width=20_000, interval_w=20_000, places=np.arange(32))
    assert grid_of(wide) == "its restart intervals cannot be read one by one"
    assert isinstance(grid_of(replace(wide, interval_w=10_000, places=np.arange(64))), StorageGrid)


@pytest.mark.parametrize(("transform", "photometric"), [(0, RGB_COLOURS), (1, YCBCR), (None, YCBCR)])
def test_a_grid_of_intervals_is_that_of_the_level(cut: Cut, transform: int | None, photometric: int) -> None:
    """Sizes reach from each place to the next, the last to the end; colours are what the stream says of them."""
    head = cut.head
    if transform is not None:  # Adobe's marker in the place of JFIF's
        head = head[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) + head[20:]
    places = np.arange(128) * 10 + len(head)
    grid = grid_of(NdpiLevel(1000, 250, 0, 256, 8, head, places, int(places[-1]) + 33))
    assert isinstance(grid, StorageGrid)
    assert (grid.width, grid.height, grid.tile_width, grid.tile_height) == (1000, 250, 256, 8)
    assert grid.offsets.shape == grid.sizes.shape == (32, 4)
    assert (grid.photometric, grid.absent_is_glass) == (photometric, False)
    np.testing.assert_array_equal(grid.offsets.ravel(), places)
    np.testing.assert_array_equal(grid.sizes.ravel(), [10] * 127 + [33])
    assert b"\xff\xdd" in head and b"\xff\xdd" not in grid.tables, "an interval has no intervals of its own"


def test_its_microns_are_its_own(tmp_path: Path) -> None:
    with open_slide(write_ndpi(tmp_path / "a.ndpi", RGB, interval=INTERVAL, mpp=0.2278)) as slide:
        assert slide.mpp_xy == pytest.approx((0.2278, 0.2278), rel=1e-4)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("how", ["short", "zeros", "garbage", "empty"])
def test_a_damaged_interval_is_counted_where_it_lies(tmp_path: Path, cut: Cut, how: str, route: str) -> None:
    """The one in the tenth row of blocks, at the left but one."""
    intervals, number = list(cut.intervals), 9 * 4 + 1
    whole = intervals[number]
    spoilt = {"short": whole[: len(whole) // 2], "zeros": bytes(len(whole)), "garbage": b"\x12" * 9, "empty": b""}
    intervals[number] = spoilt[how]
    path = write_cuts(tmp_path / "a.ndpi", [replace(cut, intervals=intervals)])
    _, status, tiles = read_all(path, route, tile_px=64, target_mpp=0.5)
    bad = (tiles.coords[:, 0] // SIDE == 1) & (tiles.coords[:, 1] == 64)
    np.testing.assert_array_equal(status == TileStatus.CORRUPT, bad)


STARTS_FAULTS = {
    "exchanged": lambda s: [*s[:3], s[7], *s[4:7], s[3], *s[8:]],
    "one too far": lambda s: [s[0], *s[2:], s[-1]],
    "one of them twice": lambda s: [*s[:10], s[9], *s[11:]],
    "all the same": lambda s: [s[0], *[s[1]] * (len(s) - 1)],
    "beyond the file": lambda s: [s[0], *[2**31] * (len(s) - 1)],
    "eight too far": lambda s: [s[0], *s[9:], *range(s[-1] + 1, s[-1] + 9)],
    "no further than the middle": lambda s: [*s[:64], *range(s[63] + 1, s[63] + 65)],
}


@pytest.mark.parametrize("name", STARTS_FAULTS)
def test_a_wrong_list_of_intervals_is_refused(tmp_path: Path, cut: Cut, name: str) -> None:
    """OpenSlide would show intervals in the places of others."""
    path = write_cuts(tmp_path / "a.ndpi", [cut], more={STARTS: (LONG, STARTS_FAULTS[name](cut.starts))})
    with pytest.raises(SlideError, match="lists other places"):
        open_slide(path)


@pytest.mark.parametrize("high", [[0], [0, 0], [0] * 127, [0] * 129])
def test_halves_of_a_list_that_differ_in_length_are_refused_in_words_of_our_own(
    tmp_path: Path, cut: Cut, high: list[int]
) -> None:
    path = write_cuts(tmp_path / "a.ndpi", [cut], more={STARTS_HIGH: (LONG, high)})
    with pytest.raises(SlideError, match=f"low halves of 128 places of restart intervals, and {len(high)} high"):
        open_slide(path)


def test_a_lost_marker_is_noticed_where_nothing_lists_the_intervals(tmp_path: Path, cut: Cut) -> None:
    """From there on, OpenSlide would show each interval in the place of the one before it."""
    path = write_cuts(tmp_path / "a.ndpi", [cut], starts="none")
    data = path.read_bytes()
    at = 12 + cut.starts[30]
    path.write_bytes(data[: at - 2] + b"\0\0" + data[at:])
    with pytest.raises(SlideError, match="holds 127 restart intervals where its 1024 x 256 px need 128"):
        open_slide(path)
    again = data[: at - 2] + b"\xff\xd2" + data[at:]
    assert again != data
    path.write_bytes(again)
    with pytest.raises(SlideError, match="lost restart markers"):
        open_slide(path)


@pytest.mark.parametrize(("route", "last"), [("openslide", 2), ("jpeg-ndpi", 1)])
def test_a_lost_marker_is_damage_where_a_list_names_its_place(tmp_path: Path, cut: Cut, route: str, last: int) -> None:
    """OpenSlide gives up the interval that follows, too."""
    path = write_cuts(tmp_path / "a.ndpi", [cut])
    data = bytearray(path.read_bytes())
    at = 12 + cut.starts[9 * 4 + 2]
    data[at - 2 : at] = bytes(2)
    path.write_bytes(data)
    _, status, tiles = read_all(path, route, tile_px=64, target_mpp=0.5)
    bad = (tiles.coords[:, 1] == 64) & (tiles.coords[:, 0] // SIDE >= 1) & (tiles.coords[:, 0] // SIDE <= last)
    np.testing.assert_array_equal(status == TileStatus.CORRUPT, bad)


def of_size(width: int, height: int):  # type: ignore[no-untyped-def]
    """The same stream under another size, which the directory and the stream both state."""
    tags = {256: (LONG, [width]), 257: (LONG, [height]), 278: (LONG, [height])}
    return lambda cut: (replace(cut, head=resized(cut.head, width, height)), tags)


def of_interval(blocks: int):  # type: ignore[no-untyped-def]
    def change(cut: Cut):  # type: ignore[no-untyped-def]
        at = cut.head.index(b"\xff\xdd") + 4
        return replace(cut, head=cut.head[:at] + struct.pack(">H", blocks) + cut.head[at + 2 :]), {}

    return change


CONTRADICTIONS = {
    "half as wide": of_size(512, 256),  # OpenSlide would show intervals in the places of others
    "twice as wide": of_size(2048, 256),
    "a part of an interval wider": of_size(1100, 256),
    "twice as high": of_size(1024, 512),
    "half as high": of_size(1024, 128),
    "nothing": of_size(0, 0),
    "beyond all sizes": of_size(2**31 - 2048, 2**31 - 8),
    "higher than all sizes": of_size(65_536, 2**31 - 8),
    "larger than its intervals": of_size(2**20, 2**20),
    "shorter intervals": of_interval(8),
    "longer intervals": of_interval(32),
    "intervals that do not fit": of_interval(5),
    "another size than its stream": lambda cut: (cut, {256: (LONG, [900])}),
    "fewer places": lambda cut: (
        cut,
        {STARTS: (LONG, cut.starts[:-4]), STARTS_HIGH: (LONG, [0] * len(cut.starts[:-4]))},
    ),
    "places high and low": lambda cut: (cut, {STARTS_HIGH: (LONG, [0, 0])}),
    "places beyond 4 GB": lambda cut: (cut, {STARTS_HIGH: (LONG, [1] * len(cut.starts))}),
    "no lens": lambda cut: (cut, {SOURCE_LENS: (FLOAT, [0.0])}),
    "another focal plane alone": lambda cut: (cut, {FOCAL_PLANE: (SIGNED, [300])}),
    "an interval too few": lambda cut: (replace(cut, intervals=cut.intervals[:5] + cut.intervals[6:]), {}),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_refused(tmp_path: Path, cut: Cut, name: str) -> None:
    """OpenSlide ends the process on some of them, and takes minutes over others."""
    changed, tags = CONTRADICTIONS[name](cut)
    path = write_cuts(tmp_path / "a.ndpi", [changed], more=tags)
    with pytest.raises(SlideError):
        open_slide(path)


def test_a_file_that_ends_early_is_refused(tmp_path: Path, cut: Cut) -> None:
    whole = write_cuts(tmp_path / "whole.ndpi", [cut]).read_bytes()
    path = tmp_path / "a.ndpi"
    for size in (3, 11, 500, len(whole) // 2, len(whole) - 900, len(whole) - 100):
        path.write_bytes(whole[:size])
        with pytest.raises(SlideError):
            open_slide(path, mpp=0.5)


def test_another_ending_of_the_name_changes_nothing(tmp_path: Path, cut: Cut) -> None:
    """OpenSlide knows an NDPI by a tag, so what is checked may not depend on the name."""
    changed, tags = CONTRADICTIONS["half as wide"](cut)
    with pytest.raises(SlideError, match="restart intervals"):
        open_slide(write_cuts(tmp_path / "a.tif", [changed], more=tags))
    with open_slide(write_cuts(tmp_path / "b.tif", [cut])) as slide:
        assert slide.vendor == "hamamatsu"
