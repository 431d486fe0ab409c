"""The tiles that the browser gets show the slide: its colours, its place, at every zoom, whatever its format."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.format_factory import pages_of, write_dicom, write_philips, write_scn
from support.slide_factory import damage, encode, replace_tiles, split_tables, texture, write_slide

from stamp_deploy.slide import open_slide
from stamp_deploy.slide.backends import Level
from stamp_deploy.viewer.stored_stream import whole_stream
from stamp_deploy.viewer.tile_cache import TileCache
from stamp_deploy.viewer.tile_maker import HATCH_DARK, HATCH_GREY, TileMaker
from stamp_deploy.viewer.zoom_levels import PICTURE, picture_levels, zoom_levels

WIDTH, HEIGHT = 1500, 1100
RGB = np.asarray(
    Image.fromarray(texture(HEIGHT // 12, WIDTH // 12, seed=4)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
)
"""Smooth enough for JPEG at each zoom; a shift of a few pixels shows."""
SMALL = np.asarray(Image.fromarray(RGB).resize((188, 138), Image.Resampling.BOX))


def maker_of(path: Path, picture: NDArray[np.uint8] = SMALL) -> TileMaker:
    slide = open_slide(path, mpp=0.5)
    return TileMaker(slide, (slide.width, slide.height), picture, TileCache(), path.name)


def pixels(jpeg: bytes) -> NDArray[np.int64]:
    """As a browser decodes it: an Adobe segment decides on the colours, else they are taken for YCbCr."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(np.int64)


def whole(maker: TileMaker, level: int) -> NDArray[np.int64]:
    """All tiles of a level, put together."""
    zoom = maker.levels[level]
    out = np.full((zoom.height, zoom.width, 3), -1, np.int64)
    for row in range(zoom.rows):
        for column in range(zoom.columns):
            left, top, right, bottom = zoom.box(column, row)
            tile = pixels(maker.tile(level, column, row))
            assert tile.shape == (bottom - top, right - left, 3), (level, column, row)
            out[top:bottom, left:right] = tile
    assert (out >= 0).all()
    return out


def error_of(shown: NDArray[np.int64], rgb: NDArray[np.uint8] = RGB) -> float:
    """Mean difference, of 255, from the picture brought to the same size."""
    high, wide = shown.shape[:2]
    wanted = np.asarray(Image.fromarray(rgb).resize((wide, high), Image.Resampling.BOX)).astype(np.int64)
    return float(np.abs(shown - wanted).mean())


@pytest.mark.parametrize("coding", ["rgb", "444", "422", "420"])
@pytest.mark.parametrize("levels", [(), (4,), (2, 4), (3, 9)])
def test_every_level_shows_the_slide(tmp_path: Path, coding: str, levels: tuple[int, ...]) -> None:
    """Also those that the file lacks, and one with a pyramid that is none of powers of two."""
    maker = maker_of(write_slide(tmp_path / "slide.svs", RGB, tile=240, coding=coding, levels=levels, quality=95))
    assert [zoom.downsample for zoom in maker.levels] == pytest.approx([8, 4, 2, 1], rel=0.02)
    assert maker.levels[0].columns * maker.levels[0].rows == 1
    for level in range(len(maker.levels)):
        assert error_of(whole(maker, level)) < 4, level


def test_stored_tiles_are_passed_on_as_they_are(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", RGB, tile=256, coding="420", levels=(4,))
    maker = maker_of(path)
    stored = [(zoom.downsample, zoom.stored) for zoom in maker.levels]
    assert [flag for _, flag in stored] == [False, True, False, True]
    jpeg = maker.tile(3, 1, 2)
    stream = pages_of(path)[0].streams[2 * 6 + 1]
    scan = stream[stream.index(b"\xff\xda") :]
    assert jpeg.endswith(scan), "the coded pixels are those of the file"
    assert maker._cache.held_bytes == 0
    maker.tile(2, 0, 0)
    assert maker._cache.held_bytes > 0


def without_markers(stream: bytes) -> bytes:
    """A stream that says nothing of its colours, as those of Aperio scanners: components are numbered 1, 2, 3."""
    out, at = bytearray(b"\xff\xd8"), 2
    while True:
        marker, end = stream[at + 1], at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        part = bytearray(stream[at:end])
        for number in range(3):
            if marker == 0xC0:
                part[10 + 3 * number] = number + 1
            elif marker == 0xDA:
                part[5 + 2 * number] = number + 1
        if not 0xE0 <= marker <= 0xEF:
            out += part
        at = end
        if marker == 0xDA:
            return bytes(out + stream[at:])


def test_a_stream_of_another_size_is_not_passed_on() -> None:
    """A browser would stretch it over the place of the tile."""
    stream = encode(RGB[:128, :256], "444")
    assert whole_stream(stream, b"", 6, 256, 128) is not None
    assert whole_stream(stream, b"", 6, 128, 256) is None
    assert whole_stream(stream, b"", 6, 256, 256) is None


@pytest.mark.parametrize(("coding", "photometric"), [("rgb", 2), ("444", 6), ("420", 6)])
@pytest.mark.parametrize("shared", [False, True])
def test_streams_that_say_nothing_of_their_colours(coding: str, photometric: int, shared: bool) -> None:
    """The file knows them, the browser does not: without a word it takes RGB for YCbCr."""
    part = RGB[:256, :256]
    stream = without_markers(encode(part, coding, 95))
    tables, rest = split_tables(stream) if shared else (b"", stream)
    shown = whole_stream(rest, tables, photometric, 256, 256)
    assert shown is not None
    assert float(np.abs(pixels(shown) - part).mean()) < 4
    if coding == "rgb":
        assert float(np.abs(pixels(stream) - part).mean()) > 20, "the test could not fail"


def test_what_a_stream_says_counts_more_than_the_file() -> None:
    part = RGB[:256, :256]
    shown = whole_stream(encode(part, "rgb", 95), b"", 6, 256, 256)
    assert shown is not None
    assert float(np.abs(pixels(shown) - part).mean()) < 4


def test_comments_and_application_data_are_left_out() -> None:
    stream = encode(RGB[:256, :256], "444")
    name = b"Mustermann"
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(name)) + name
    exif = b"\xff\xe1" + struct.pack(">H", 8 + len(name)) + b"Exif\0\0" + name
    shown = whole_stream(stream[:2] + comment + exif + stream[2:], b"", 6, 256, 256)
    assert shown is not None
    assert name not in shown
    assert pixels(shown).shape == (256, 256, 3)


def broken_streams() -> list[bytes]:
    good = encode(RGB[:256, :256], "444")
    frame = good.index(b"\xff\xc0")
    return [
        b"", b"\xff\xd8", b"not a stream at all", good[:100], good[:2] + b"\xff\xe1\xff\xff" + good[2:],
        good[:frame] + b"\xff\xc3" + good[frame + 2 :],  # lossless
        good[:frame] + b"\xff\xc9" + good[frame + 2 :],  # arithmetic
        encode(RGB[:128, :256], "444"),  # another size
        good[: frame + 4] + b"\x0c" + good[frame + 5 :],  # 12 bits
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(broken_streams())))
def test_a_stream_that_a_browser_could_not_show_is_not_passed_on(number: int) -> None:
    assert whole_stream(broken_streams()[number], b"", 6, 256, 256) is None


@pytest.mark.parametrize("kind", ["dicom", "philips"])
def test_other_formats_with_stored_tiles(tmp_path: Path, kind: str) -> None:
    pages = pages_of(write_slide(tmp_path / "a.svs", RGB, tile=256, coding="420", levels=(4,), quality=95))
    path = write_dicom(tmp_path / "dicom", pages) if kind == "dicom" else write_philips(tmp_path / "b.tiff", pages)
    maker = maker_of(path)
    assert any(zoom.stored for zoom in maker.levels)
    for level in range(len(maker.levels)):
        shown = whole(maker, level)
        zoom = maker.levels[level]
        # a Philips file pads its levels to whole storage tiles
        high, wide = round(HEIGHT / zoom.downsample), round(WIDTH / zoom.downsample)
        assert error_of(shown[: min(high, len(shown)), :wide]) < 5, level


def test_areas_of_a_glass_lie_in_their_places(tmp_path: Path) -> None:
    pages = pages_of(write_slide(tmp_path / "a.svs", RGB, tile=256, coding="420", levels=(4,), quality=95))
    path = write_scn(tmp_path / "b.scn", [(400, 300, pages)], size=(2400, 1800))
    maker = maker_of(path)
    top = whole(maker, len(maker.levels) - 1)
    slide = open_slide(path)
    assert top.shape[:2] == (slide.height, slide.width)
    reference = slide.read_region(0, 0, 0, slide.width, slide.height).astype(np.int64)
    assert float(np.abs(top - reference).mean()) < 3
    assert (top[:250] > 250).all()


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs"])
def test_a_real_slide_has_its_own_colours(data_dir: Path, name: str) -> None:
    """RGB streams with shared tables and no word on their colours."""
    slide = open_slide(data_dir / "slides" / name)
    picture = slide.thumbnail(512)
    maker = TileMaker(slide, (slide.width, slide.height), picture, TileCache(), name)
    last = len(maker.levels) - 1
    assert maker.levels[last].stored
    left, top, right, bottom = maker.levels[last].box(4, 5)
    reference = slide.read_region(0, left, top, right - left, bottom - top).astype(np.int64)
    assert float(np.abs(pixels(maker.tile(last, 4, 5)) - reference).mean()) < 2
    below = pixels(maker.tile(last - 1, 2, 2))
    x, y, *_ = maker.levels[last - 1].box(2, 2)
    region = slide.read_region(0, 2 * x, 2 * y, 512, 512)
    wanted = np.asarray(Image.fromarray(region).reduce(2)).astype(np.int64)
    here, beside = (
        float(np.abs(below[:, 1:] - part[:, : below.shape[1] - 1]).mean()) for part in (wanted[:, 1:], wanted)
    )
    assert here < 6 < 2 * beside, "a pixel beside its place it is less alike"


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.jp2.tiff", "CMU-1-Small-Region.webp.tiff"])
def test_slides_that_the_compiled_decoder_cannot_read(data_dir: Path, name: str) -> None:
    path = data_dir / "formats" / name
    try:
        slide = open_slide(path, mpp=0.5)
    except Exception as error:
        pytest.skip(f"{name} cannot be opened here: {error}")
    picture = slide.thumbnail(256)
    maker = TileMaker(slide, (slide.width, slide.height), picture, TileCache(), name)
    last = len(maker.levels) - 1
    for level in (last, last - 1):
        zoom = maker.levels[level]
        left, top, right, bottom = zoom.box(1, 1)
        scale = round(zoom.downsample)
        region = slide.read_region(0, left * scale, top * scale, (right - left) * scale, (bottom - top) * scale)
        wanted = np.asarray(Image.fromarray(region).reduce(scale)).astype(np.int64)
        assert float(np.abs(pixels(maker.tile(level, 1, 1)) - wanted).mean()) < 4, level


@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_what_cannot_be_read_is_hatched_and_the_rest_is_shown(tmp_path: Path, how: str) -> None:
    path = write_slide(tmp_path / "slide.svs", RGB, tile=256, coding="420", quality=95)
    damage(path, 7, how)  # column 1, row 1
    maker = maker_of(path)
    shown = whole(maker, 2)  # downsample 2
    hole = shown[130:254, 130:254]
    if how == "truncated":  # a decoder may show what is left of the stream
        beside = np.delete(shown, np.s_[128:256], axis=0)
        assert error_of(beside, np.delete(RGB, np.s_[256:512], axis=0)) < 4
        return
    grey = np.abs(hole[..., 0] - hole[..., 1]) + np.abs(hole[..., 0] - hole[..., 2])
    assert grey.max() < 12
    assert hole.min() < HATCH_DARK + 25
    assert hole.max() > HATCH_GREY - 25
    assert error_of(shown[:126], RGB[:252]) < 4


def test_streams_of_other_sizes_are_not_taken_for_the_tile(tmp_path: Path) -> None:
    source = write_slide(tmp_path / "a.svs", RGB, tile=256, coding="420")
    small = encode(RGB[:64, :64], "420")
    path = replace_tiles(source, tmp_path / "slide.svs", lambda number, stream: small if number == 7 else stream)
    tile = pixels(maker_of(path).tile(3, 1, 1))
    assert tile.shape == (256, 256, 3)


def test_the_picture_alone_serves_the_coarse_levels() -> None:
    maker = TileMaker(None, (WIDTH, HEIGHT), SMALL, TileCache(), "slide")
    assert [zoom.downsample for zoom in maker.levels] == [8, 4]
    assert error_of(whole(maker, 0)) < 4
    large = picture_levels((100_000, 80_000), (2048, 1638))
    assert [zoom.downsample for zoom in large] == [512, 256, 128, 64, 32]


def test_levels_as_coarse_as_the_picture_come_from_it() -> None:
    one = (Level(0, 100_000, 80_000, 1.0, 1.0),)
    made = zoom_levels(one, None, (2048, 1638))
    assert [zoom.source for zoom in made] == [PICTURE] * 4 + [0] * 6
    assert [zoom.downsample for zoom in made] == [512, 256, 128, 64, 32, 16, 8, 4, 2, 1]
    pyramid = (*one, Level(1, 25_000, 20_000, 4.0, 4.0), Level(2, 6_250, 5_000, 16.0, 16.0))
    assert [zoom.source for zoom in zoom_levels(pyramid, None, (2048, 1638))] == [PICTURE] * 4 + [2, 2, 1, 1, 0, 0]


def test_tiles_that_are_not_there(tmp_path: Path) -> None:
    maker = maker_of(write_slide(tmp_path / "slide.svs", RGB))
    for place in ((-1, 0, 0), (4, 0, 0), (0, 1, 0), (0, 0, -1), (3, 6, 0), (3, 0, 5)):
        with pytest.raises(KeyError):
            maker.tile(*place)


def test_a_tile_that_is_put_twice_counts_once() -> None:
    """Two threads may make one tile."""
    cache = TileCache(10)
    for size in (4, 4, 6):
        cache.put("a", b"x" * size)
        assert cache.held_bytes == size
    cache.put("b", b"y" * 4)
    assert cache.get("a") == b"x" * 6 and cache.get("b") == b"y" * 4


def test_the_cache_keeps_to_its_bound() -> None:
    cache = TileCache(1000)
    for number in range(100):
        cache.put(number, bytes(90))
        assert cache.held_bytes <= 1000
    assert cache.get(0) is None
    assert cache.get(99) is not None
    cache.get(89)
    cache.put("new", bytes(90))
    assert cache.get(89) is not None, "what was used last stays"
    cache.put("large", bytes(2000))
    assert cache.get("large") is None
    assert cache.held_bytes == 0


def test_many_threads_get_the_same_tiles(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", RGB, tile=256, coding="420", levels=(4,))
    maker, alone = maker_of(path), maker_of(path)
    places = [
        (level, column, row)
        for level, zoom in enumerate(maker.levels)
        for row in range(zoom.rows)
        for column in range(zoom.columns)
    ]
    wanted = {place: alone.tile(*place) for place in places}
    wrong: list[tuple[int, int, int]] = []

    def ask(start: int) -> None:
        for place in places[start:] + places[:start]:
            if maker.tile(*place) != wanted[place]:
                wrong.append(place)

    threads = [Thread(target=ask, args=(3 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
