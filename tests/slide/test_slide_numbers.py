"""What is refused or left out on opening a slide, at the edge of each number, on files made of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.slide_factory import replace_tiles, texture, write_slide

from stamp_deploy.errors import SlideError
from stamp_deploy.slide.backends import Level
from stamp_deploy.slide.checks import BOMB_PIXELS, BOMB_RATIO, MAX_SIDE, _present_pixels, check_decodes, check_size
from stamp_deploy.slide.colour import (
    _what_tiff_pages_are,
    check_brightfield,
    check_image_colour,
    check_stated_light,
)
from stamp_deploy.slide.jpeg_header import RGB, YCBCR, stated_colours
from stamp_deploy.slide.numbers import magnification, number
from stamp_deploy.slide.properties import public_properties, scanned_bounds
from stamp_deploy.slide.pyramid import levels_of_the_slide
from stamp_deploy.slide.slide import _reduce_all

SLIDE = Path("/patients/slide.svs")


@dataclass
class Backend:
    """Levels whose pixels `paint` gives by level-0 position; notes what was read, and fails where told to."""

    levels: tuple[Level, ...]
    vendor: str = "generic-tiff"
    fails: int = 0
    shift: dict[int, float] = field(default_factory=dict)
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        self.asked.append((level, x, y, w, h))
        if len(self.asked) <= self.fails:
            raise SlideError(f"spot {len(self.asked)} is damaged", remedy="scan again")
        one = self.levels[level]
        px = (x + (np.arange(w) + 0.5) * one.downsample_x)[None, :]
        py = (y + (np.arange(h) + 0.5) * one.downsample_y)[:, None]
        wave = 128 + 80 * np.sin(px / 60) * np.cos(py / 60) + self.shift.get(level, 0.0)
        return np.repeat(wave[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def level(index: int, width: int, height: int, full: tuple[int, int] | None = None) -> Level:
    full = full or (width, height)
    return Level(index, width, height, full[0] / width, full[1] / height)


# Sizes


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [
        (1, 1, True), (0, 1, False), (1, 0, False), (MAX_SIDE, 1, True), (1, MAX_SIDE, True),
        (MAX_SIDE + 1, 1, False), (1, MAX_SIDE + 1, False), (-5, 5, False),
    ],
)  # fmt: skip
def test_sides_of_a_slide(tmp_path: Path, width: int, height: int, fits: bool) -> None:
    (tmp_path / "a.tif").write_bytes(b"x" * 100_000)
    backend = Backend((Level(0, width, height, 1, 1),))
    if fits:
        check_size(tmp_path / "a.tif", backend)  # type: ignore[arg-type]
    else:
        with pytest.raises(SlideError, match=f"states a size of {width} x {height} px"):
            check_size(tmp_path / "a.tif", backend)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pixels", "ratio", "vendor", "bomb"),
    [
        (BOMB_PIXELS, 1.01, "", True),
        (BOMB_PIXELS, 0.99, "", False),
        (BOMB_PIXELS - 20_000, 5, "", False),
        (BOMB_PIXELS, 5, "mirax", False),  # its pixels lie in other files
        (BOMB_PIXELS, 5, "dicom", False),
    ],
)
def test_a_small_file_of_many_pixels_is_a_bomb(
    tmp_path: Path, pixels: int, ratio: float, vendor: str, bomb: bool
) -> None:
    assert (BOMB_PIXELS, BOMB_RATIO) == (200_000_000, 500)
    path = tmp_path / "a.tif"
    with path.open("wb") as handle:
        handle.truncate(int(pixels * 3 / BOMB_RATIO / ratio))
    backend = Backend((Level(0, 20_000, pixels // 20_000, 1, 1),), vendor)
    if bomb:
        with pytest.raises(SlideError, match="no scan is so empty"):
            check_size(path, backend)  # type: ignore[arg-type]
    else:
        check_size(path, backend)  # type: ignore[arg-type]


@pytest.mark.parametrize("absent", [(), (0,), (3, 4, 5)])
def test_what_a_sparse_file_leaves_out_is_no_picture(tmp_path: Path, absent: tuple[int, ...]) -> None:
    whole = write_slide(tmp_path / "a.svs", texture(128, 192), tile=64, levels=(2,))
    path = replace_tiles(whole, tmp_path / "b.svs", lambda n, stream: b"" if n in absent else stream)
    assert _present_pixels(path, Level(0, 192, 128, 1, 1)) == (6 - len(absent)) * 64 * 64
    assert _present_pixels(path, Level(0, 96, 64, 1, 1)) == 2 * 64 * 64  # the page of that size
    assert _present_pixels(path, Level(0, 191, 128, 1, 1)) == 191 * 128  # none is: all of it counts
    assert _present_pixels(tmp_path / "none.tif", Level(0, 192, 128, 1, 1)) == 192 * 128


@pytest.mark.parametrize("fails", [0, 1, 4, 5])
def test_one_of_five_spots_must_decode(fails: int) -> None:
    """In the middle first, then towards the four corners, within the level."""
    backend = Backend((level(0, 8000, 6000), level(1, 1000, 500, (8000, 6000))), fails=fails)
    if fails == 5:
        with pytest.raises(SlideError, match="spot 1 is damaged"):
            check_decodes(backend, backend.levels[1])  # type: ignore[arg-type]
    else:
        check_decodes(backend, backend.levels[1])  # type: ignore[arg-type]
    x, y = 984 * 8, 484 * 12
    spots = [(x / 2, y / 2), (x / 5, y / 5), (x * 4 / 5, y / 5), (x / 5, y * 4 / 5), (x * 4 / 5, y * 4 / 5)]
    assert backend.asked == [(1, int(a), int(b), 16, 16) for a, b in spots[: min(fails + 1, 5)]]


def test_a_level_of_a_few_pixels_is_decoded_whole() -> None:
    backend = Backend((level(0, 5, 3),))
    check_decodes(backend, backend.levels[0])  # type: ignore[arg-type]
    assert backend.asked == [(0, 0, 0, 5, 3)]


# Levels


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (1000, 750, None),
        (1000, 732, None),  # 2.4 % and rounding
        (1000, 768, None),
        (1000, 700, "another shape"),
        (1000, 810, "another shape"),
        (700, 750, "another shape"),
        (4000, 3000, "no smaller"),
        (4001, 3000, "no smaller"),
    ],
)
def test_levels_of_another_shape_or_no_smaller_are_left_out(width: int, height: int, reason: str | None) -> None:
    full = (4000, 3000)
    backend = Backend((level(0, *full), level(1, width, height, full), level(2, 500, 375, full)))
    kept, numbers, notes = levels_of_the_slide(backend)  # type: ignore[arg-type]
    expected = (0, 2) if reason else (0, 1, 2)
    assert numbers == expected
    assert [one.index for one in kept] == list(range(len(expected)))
    assert [(one.width, one.height) for one in kept] == [
        (backend.levels[n].width, backend.levels[n].height) for n in expected
    ]
    if reason:
        assert len(notes) == 1
        assert notes[0].startswith(f"level 1 ({width} x {height} px) ")
        assert reason in notes[0]


@pytest.mark.parametrize(("shift", "same"), [(0, True), (30, True), (-30, True), (34, False), (-34, False)])
def test_a_level_may_differ_by_32_grey_levels(shift: float, same: bool) -> None:
    full = (4000, 3000)
    backend = Backend((level(0, *full), level(1, 1000, 750, full)), shift={1: shift})
    _, numbers, notes = levels_of_the_slide(backend)  # type: ignore[arg-type]
    assert (numbers == (0, 1)) == same
    assert bool(notes) != same


def test_the_spots_of_both_levels_are_the_same_place() -> None:
    full = (4000, 3000)
    backend = Backend((level(0, *full), level(1, 1000, 600, full)))
    backend.levels = (backend.levels[0], Level(1, 1000, 750, 4, 4))
    levels_of_the_slide(backend)  # type: ignore[arg-type]
    pairs = list(zip(backend.asked[::2], backend.asked[1::2], strict=True))
    assert len(pairs) == 5
    for (coarse, x, y, w, h), fine in pairs:
        assert (coarse, w, h) == (1, 32, 32)
        assert fine == (0, x, y, 128, 128)
    assert pairs[0][0][1:3] == (int(968 * 1.5 / 4) * 4, int(718 * 1.5 / 4) * 4)


@dataclass
class Spots(Backend):
    """Levels that differ by `differs` grey levels at some of 4 x 4 spots, and are plain but for some, `busy`."""

    differs: dict[int, float] = field(default_factory=dict)
    busy: dict[int, float] = field(default_factory=dict)

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        self.asked.append((level, x, y, w, h))
        full = self.levels[0]
        spot = int(y * 4 / full.height) * 4 + int(x * 4 / full.width)
        half = np.where(np.arange(w) < w // 2, 1.0, -1.0)[None, :] * self.busy.get(spot, 0.0)
        grey = np.broadcast_to(100 + half + (self.differs.get(spot, 0.0) if level else 0.0), (h, w))
        return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def compared(differs: dict[int, float], busy: dict[int, float]) -> tuple[bool, list[int]]:
    """Whether the second level is kept, and the spots that were looked at, in order."""
    full = (4000, 3000)
    backend = Spots((level(0, *full), level(1, 1000, 750, full)), differs=differs, busy=busy)
    _, numbers, _ = levels_of_the_slide(backend)  # type: ignore[arg-type]
    spots = [int(y * 4 / 3000) * 4 + int(x * 4 / 4000) for number, x, y, _, _ in backend.asked if number == 1]
    return numbers == (0, 1), spots


def test_all_spots_are_looked_at_from_the_middle_where_nothing_is_to_be_seen() -> None:
    kept, spots = compared({}, {})
    assert kept and sorted(spots) == list(range(16))
    assert set(spots[:4]) == {5, 6, 9, 10} and set(spots[4:8]) == {0, 3, 12, 15}


def test_five_spots_that_agree_are_enough() -> None:
    everywhere = dict.fromkeys(range(16), 20.0)
    assert len(compared({}, everywhere)[1]) == 5
    assert len(compared({}, {spot: 20.0 for spot in (5, 10, 9, 6)})[1]) == 16


@pytest.mark.parametrize("seen", [16, 12, 8, 4])
def test_a_quarter_of_the_spots_may_differ(seen: int) -> None:
    """Of those where there is something to see."""
    order = (5, 10, 9, 6, 0, 15, 3, 12, 1, 14, 2, 13, 4, 11, 7, 8)[:seen]
    busy = dict.fromkeys(order, 20.0)
    assert compared(dict.fromkeys(order[: seen // 4], 40.0), busy)[0]
    assert not compared(dict.fromkeys(order[: seen // 4 + 1], 40.0), busy)[0]


def test_a_spot_that_differs_is_something_to_see() -> None:
    assert not compared({5: 40.0}, {})[0]
    assert compared({5: 32.0}, {})[0] and not compared({5: 33.0}, {})[0]


def test_contrast_of_a_quarter_of_the_difference_is_something_to_see() -> None:
    """One of four spots may differ: plain ones do not count."""
    for contrast, kept in ((8.0, False), (9.0, True)):
        assert compared({5: 40.0}, dict.fromkeys((10, 9, 6), contrast))[0] == kept


def test_a_spot_that_cannot_be_read_does_not_count() -> None:
    full = (4000, 3000)
    backend = Spots((level(0, *full), level(1, 1000, 750, full)), fails=2, differs={5: 200.0, 10: 200.0})
    real = backend.read

    def read(number: int, *place: int) -> NDArray[np.uint8]:
        pixels = real(number, *place)
        if len(backend.asked) <= 2:
            raise SlideError("damaged", remedy="scan again")
        return pixels

    backend.read = read  # type: ignore[method-assign]
    _, numbers, _ = levels_of_the_slide(backend)  # type: ignore[arg-type]
    assert numbers == (0, 1)


# Colours


def page(**changes: Any) -> Any:
    given = {
        "is_tiled": True, "samplesperpixel": 3, "photometric": 2, "extrasamples": (), "bitspersample": 8,
        "sampleformat": 1,
    }  # fmt: skip
    return SimpleNamespace(**{**given, **changes})


@pytest.mark.parametrize(
    ("pages", "kind"),
    [
        ([page()], None),
        ([page(photometric=6)], None),
        ([page(samplesperpixel=4, extrasamples=(2,))], None),
        ([page(samplesperpixel=4, extrasamples=(1,))], None),
        ([page(samplesperpixel=4, extrasamples=(0,))], "channels"),
        ([page(samplesperpixel=4)], "channels"),
        ([page(samplesperpixel=2)], "channels"),
        ([page(bitspersample=16)], "16-bit"),
        ([page(bitspersample=(8, 8, 16))], "16-bit"),
        ([page(bitspersample=(8, 8, 8))], None),
        ([page(sampleformat=3)], "float"),
        ([page(sampleformat=None)], None),
        ([page(photometric=3, samplesperpixel=1)], "palette"),
        ([page(photometric=5, samplesperpixel=4)], "cmyk"),
        *(([page(photometric=code)], "lab") for code in (8, 9, 10)),
        ([page(photometric=0, samplesperpixel=1)], "grey"),
        ([page(photometric=1, samplesperpixel=1)], "grey"),
        ([page(photometric=1, samplesperpixel=1)] * 2, "channels"),
        ([page(photometric=1, samplesperpixel=2, extrasamples=(2,))], "grey"),
        ([page(photometric=1, samplesperpixel=3)], "channels"),
        ([page(is_tiled=False, photometric=1, samplesperpixel=1), page()], None),  # the tiled one is read
        ([page(), page(photometric=1, samplesperpixel=1)], None),
    ],
)
def test_what_pages_of_a_tiff_hold(pages: list[Any], kind: str | None) -> None:
    found = _what_tiff_pages_are(pages)
    assert (found and found[0]) == kind


def image(**changes: Any) -> Any:
    given = {"bands": 3, "hasalpha": lambda: False, "format": "uchar", "interpretation": "srgb"}
    return SimpleNamespace(**{**given, "get_fields": list, "get_typeof": lambda name: 0, **changes})


@pytest.mark.parametrize(
    ("changes", "alike", "what"),
    [
        ({}, 1, None),
        ({"bands": 4, "hasalpha": lambda: True}, 1, None),
        ({"bands": 4}, 1, "4 channels"),
        ({"bands": 2}, 1, "2 channels"),
        ({"bands": 1}, 1, "a grey picture"),
        ({"bands": 2, "hasalpha": lambda: True}, 1, "a grey picture"),
        ({"bands": 1}, 3, "3 grey pages"),
        ({"format": "ushort"}, 1, "more than 8 bits"),
        ({"format": "float"}, 1, "floating-point"),
        ({"format": "double"}, 1, "floating-point"),
        ({"interpretation": "cmyk", "bands": 4}, 1, "printer"),
    ],
)
def test_what_an_image_of_libvips_holds(changes: dict[str, Any], alike: int, what: str | None) -> None:
    if what is None:
        check_image_colour(image(**changes), alike, SLIDE, ())
        return
    with pytest.raises(SlideError, match=what):
        check_image_colour(image(**changes), alike, SLIDE, ())


@pytest.mark.parametrize(
    ("median", "bright", "refused"),
    [(39, 109, True), (40, 109, False), (39, 110, False), (0, 0, True), (200, 240, False)],
)
def test_fluorescence_is_dark_without_anything_near_white(median: int, bright: int, refused: bool) -> None:
    rgb = np.full((100, 100, 3), median, np.uint8)
    rgb[:3] = bright, bright, 255  # 3 %: of the darkest colour of the brightest percent
    if refused:
        with pytest.raises(SlideError, match="as fluorescence is"):
            check_brightfield(rgb, SLIDE, ())
        check_brightfield(rgb, SLIDE, ("fluorescence",))
    else:
        check_brightfield(rgb, SLIDE, ())


@pytest.mark.parametrize(("said", "refused"), [("fluorescence", True), ("FLUOR", True), ("brightfield", False)])
def test_the_light_that_a_scanner_states(said: str, refused: bool) -> None:
    tags = {"leica.illumination-source": said}
    if refused:
        with pytest.raises(SlideError, match="scanner's word"):
            check_stated_light(tags, SLIDE, ())
    else:
        check_stated_light(tags, SLIDE, ())
    check_stated_light({}, SLIDE, ())


# JPEG headers, written by hand


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


JFIF = segment(0xE0, b"JFIF\0" + bytes(9))


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe" + bytes(6) + bytes([transform]))


def frame(names: bytes = b"\1\2\3", marker: int = 0xC0) -> bytes:
    parts = b"".join(bytes([name, 0x11, 0]) for name in names)
    return segment(marker, bytes([8, 0, 16, 0, 16, len(names)]) + parts)


START, SCAN = b"\xff\xd8", segment(0xDA, b"\3" + bytes(9))


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (START + frame() + SCAN, set()),
        (START + JFIF + frame() + SCAN, {YCBCR}),
        (START + adobe(0) + frame() + SCAN, {RGB}),
        (START + adobe(1) + frame() + SCAN, {YCBCR}),
        (START + frame(b"RGB") + SCAN, {RGB}),
        (START + frame(b"RGB", 0xC2) + SCAN, {RGB}),
        (START + JFIF + adobe(0) + frame() + SCAN, {RGB, YCBCR}),
        (START + JFIF + frame(b"RGB") + SCAN, {RGB, YCBCR}),
        (START + JFIF + frame(b"\1") + SCAN, set()),  # grey
        (START + adobe(0) + frame(b"CMYK") + SCAN, set()),
        (START + segment(0xE0, b"JFXX\0" + bytes(9)) + frame() + SCAN, set()),
        (START + segment(0xEE, b"Adobe" + bytes(6)) + frame() + SCAN, set()),  # too short for its last byte
        (START + b"\xff" + JFIF + frame() + SCAN, {YCBCR}),  # a fill byte
        (START + segment(0xFE, JFIF) + frame() + SCAN, set()),  # within a comment
        (START + frame() + SCAN + JFIF, set()),  # after the scan has begun
        (START + b"\0" + JFIF, set()),
        (START + segment(0xDB, bytes(65)) + segment(0xC4, b"RGB" * 10) + frame() + SCAN, set()),
        (b"", set()),
        (START, set()),
    ],
)
def test_what_a_stream_states_of_its_colours(stream: bytes, expected: set[int]) -> None:
    assert stated_colours(stream) == expected


FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
"""Start of frame, by ITU-T T.81, table B.1: C4, C8 and CC are tables and an extension."""
BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length: TEM, RST0 to RST7, SOI."""


@pytest.mark.parametrize("marker", [m for m in range(1, 256) if m not in (0xD9, 0xDA, 0xE0, 0xEE, 0xFF)])
def test_every_marker_of_a_stream(marker: int) -> None:
    named = frame(b"RGB", marker)
    if marker in BARE:
        assert stated_colours(START + bytes([0xFF, marker]) + JFIF + frame() + SCAN) == {YCBCR}
    else:
        assert stated_colours(START + named + SCAN) == ({RGB} if marker in FRAMES else set())
        assert stated_colours(START + segment(marker, bytes(30)) + JFIF) == (set() if marker in FRAMES else {YCBCR})


def test_a_stream_is_looked_at_to_its_last_byte() -> None:
    whole = START + frame(b"RGB")
    assert stated_colours(whole) == {RGB}
    assert stated_colours(START + JFIF) == {YCBCR}
    assert stated_colours(START + segment(0xE0, b"JFIF\0")) == {YCBCR}
    for end in range(len(whole)):
        assert stated_colours(whole[:end]) == set()
    # a segment that states a length of less than its own two bytes is stepped over, not stood on
    assert stated_colours(START + b"\xff\xfe\0\0" + JFIF) == {YCBCR}
    assert stated_colours(START + b"\xff\xfe\0\2" + JFIF) == {YCBCR}
    assert stated_colours(START + b"\xff\xff\xff" + JFIF[1:]) == {YCBCR}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_only_three_components_state_colours(count: int) -> None:
    assert stated_colours(START + frame(b"RGBA"[:count])) == ({RGB} if count == 3 else set())


# Numbers and properties


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.25", 0.25), ("0,25", 0.25), (".5", 0.5), ("5.", 5), ("-1", -1), ("+2", 2), ("1e-3", 0.001), ("1E+2", 100),
        (" 7 ", 7), ("1" * 18, int("1" * 18)),
    ],
)  # fmt: skip
def test_numbers(text: str, value: float) -> None:
    assert number(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", ".", "1.2.3", "1,234.5", "0x10", "1_0", "nan", "inf", "1 2", "one", "1" * 19, "١", "1e1234", "1e"]
)
def test_no_numbers(text: str) -> None:
    assert math.isnan(number(text))


@pytest.mark.parametrize(
    ("text", "value"), [("40", 40), ("40x", 40), ("20 X", 20), ("63 \u00d7 ", 63), ("x40", None), ("40xx", None)]
)
def test_powers(text: str, value: float | None) -> None:
    found = magnification(text)
    assert math.isnan(found) if value is None else found == value


@pytest.mark.parametrize(
    ("key", "value", "public"),
    [
        ("openslide.mpp-x", "0.25", True), ("openslide.mpp-y", "0.25", True), ("openslide.mpp-z", "0.25", False),
        ("openslide.mpp-x", "Doe", False), ("openslide.level[3].tile-width", "240", True),
        ("openslide.level[x].width", "240", False), ("openslide.bounds-height", "7", True),
        ("aperio.MPP", "0.25", True), ("aperio.OriginalWidth", "7", True), ("aperio.User", "7", False),
        ("aperio.AppMag", "40x", True), ("aperio.AppMag", "Doe", False), ("openslide.objective-power", "20", True),
        ("openslide.vendor", "generic-tiff", True), ("openslide.vendor", "Doe^Jane", False),
        ("openslide.vendor", "x" * 32, False), ("tiff.ResolutionUnit", "inch", True),
        ("tiff.ResolutionUnit", "doe", False), ("tiff.XResolution", "1", True), ("tiff.ImageDescription", "1", False),
        ("openslide.comment", "1", False), ("openslide.level-count", "3", True),
    ],
)  # fmt: skip
def test_which_fields_leave_a_file(key: str, value: str, public: bool) -> None:
    assert public_properties({key: value}) == ({key: value} if public else {})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("1", "2", "3", "4"), (1, 2, 3, 4)), (("-1", "0", "3", "4"), (-1, 0, 3, 4)), (("1", "2", "0", "4"), None),
        (("1", "2", "3", "0"), None), (("1", "2", "3", "4.5"), None), (("a", "2", "3", "4"), None),
    ],
)  # fmt: skip
def test_the_scanned_box(values: tuple[str, ...], expected: tuple[int, ...] | None) -> None:
    names = ("x", "y", "width", "height")
    tags = {f"openslide.bounds-{name}": value for name, value in zip(names, values, strict=True)}
    assert scanned_bounds(tags) == expected
    for name in names:
        assert scanned_bounds({key: value for key, value in tags.items() if not key.endswith(f"-{name}")}) is None


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (3, 8), (1, 1)])
def test_blocks_are_true_where_all_their_pixels_are(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.8
    expected = [[mask[y : y + 2, x : x + 2].all() for x in range(0, shape[1], 2)] for y in range(0, shape[0], 2)]
    np.testing.assert_array_equal(_reduce_all(mask, shape, 2), expected)
    assert not _reduce_all(None, shape, 2).any() and _reduce_all(None, shape, 2).shape == np.shape(expected)
