"""MIRAX slides: OpenSlide's pixels, and what is damaged is refused or counted, never white and scored."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from support.mrxs_factory import Scan, index_of, write_mrxs
from support.slide_factory import reduced, texture
from tiles.test_tiles import difference, read_all

from stamp_deploy.errors import SlideError
from stamp_deploy.slide import open_slide
from stamp_deploy.tiles import TileStatus
from stamp_deploy.tissue import TissueRule, find_tissue

RGB = texture(520, 780)
SCANS = {
    "side by side": Scan(),
    "overlapping": Scan(overlap=8),
    "one image a photo": Scan(divisions=1, overlap=8),
    "sixteen images a photo": Scan(divisions=4, side=32),
    "a map": Scan(positions="plain"),
    "a deflated map, photos beside their places": Scan(overlap=8, positions="deflated", jitter=3),
}
PLACES = np.dtype([("flag", "u1"), ("x", "<i4"), ("y", "<i4")])


def size_of(scan: Scan) -> tuple[int, int]:
    step = scan.photo - scan.overlap
    return scan.size((RGB.shape[1] - scan.overlap) // step, (RGB.shape[0] - scan.overlap) // step)


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_levels_and_pixels_are_those_of_the_picture(tmp_path: Path, scan: Scan) -> None:
    path = write_mrxs(tmp_path / "a.mrxs", RGB, scan, levels=3, coding="444", quality=98)
    width, height = size_of(scan)
    with open_slide(path) as slide:
        assert slide.vendor == "mirax"
        assert slide.mpp_xy == (0.5, 0.5)
        assert slide.missing is None
        assert [(level.width, level.height) for level in slide.levels] == [
            (width >> n, height >> n) for n in range(3)
        ]  # fmt: skip
        seen = slide.read_region(0, 0, 0, width, height)
        if scan.jitter:  # between photos that lie apart there is glass
            seen = np.where((seen == 255).all(-1, keepdims=True), RGB[:height, :width], seen)
        assert difference(seen, RGB[:height, :width]).mean() < 1.5
        half = slide.read_region(1, 0, 0, width // 2, height // 2)
        assert difference(half, reduced(RGB[:height, :width], 2)).mean() < 6
    ours, status, tiles = read_all(path, "openslide", tile_px=32, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    with open_slide(path) as slide:
        for pixels, (x, y) in zip(ours[::7], tiles.coords[::7].tolist(), strict=True):
            np.testing.assert_array_equal(pixels, slide.read_region(0, x, y, 32, 32))


def test_photos_that_were_not_taken_are_glass(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path / "a.mrxs", RGB, Scan(), levels=3, without=[(0, 0), (2, 3)])
    ours, status, tiles = read_all(path, "openslide", tile_px=64, target_mpp=0.5)
    assert (status == TileStatus.OK).all()
    photo = tiles.coords // 128
    glass = (photo == (0, 0)).all(1) | (photo == (3, 2)).all(1)
    np.testing.assert_array_equal((ours == 255).all((1, 2, 3)), glass)
    with open_slide(path) as slide:
        assert slide.missing is None
        assert len(slide.levels) == 3


@pytest.mark.parametrize("how", ["truncated", "garbage"])
def test_a_damaged_image_is_counted_where_it_lies(tmp_path: Path, how: str) -> None:
    def spoil(number: int, stream: bytes) -> bytes:
        if number != 15:
            return stream
        return {"truncated": stream[: len(stream) // 3], "garbage": b"\xff\xd8" + bytes(500)}[how]

    path = write_mrxs(tmp_path / "a.mrxs", RGB, Scan(), levels=2, change=spoil)
    _, status, tiles = read_all(path, "openslide", tile_px=64, target_mpp=0.5)
    at = (tiles.coords[:, 0] == 3 * 64) & (tiles.coords[:, 1] == 64)
    np.testing.assert_array_equal(status == TileStatus.CORRUPT, at)


def spoilt_index(path: Path, change) -> None:  # type: ignore[no-untyped-def]
    """Change the entries (image, offset, length, file) of each level's page: int32 [n, 4]."""
    index = path.with_suffix("") / "Index.dat"
    data = index.read_bytes()
    (root,) = struct.unpack_from("<i", data, 37)
    levels = []
    for level in range(3):
        (pointer,) = struct.unpack_from("<i", data, root + 4 * level)
        (page,) = struct.unpack_from("<i", data, pointer + 4)
        (count,) = struct.unpack_from("<i", data, page)
        levels.append(np.frombuffer(data, "<i4", 4 * count, page + 8).reshape(-1, 4))
    levels = [change(number, entries.copy()) for number, entries in enumerate(levels)]
    index.write_bytes(index_of([[tuple(row) for row in entries.tolist()] for entries in levels], []))


@pytest.mark.parametrize("scan", [Scan(), Scan(divisions=1), Scan(divisions=4, side=32)])
def test_what_level_0_lacks_and_coarser_levels_show_is_missing(tmp_path: Path, scan: Scan) -> None:
    """OpenSlide would show white: the overview shows tissue there, and the tiles would be scored."""
    path = write_mrxs(tmp_path / "a.mrxs", RGB, scan, levels=3)
    columns = (RGB.shape[1] // scan.photo) * scan.divisions
    lost = {4 * columns + 4, 4 * columns + 5, 5 * columns + 4, 5 * columns + 5}
    spoilt_index(path, lambda level, rows: rows[~np.isin(rows[:, 0], list(lost))] if level == 0 else rows)
    ours, status, tiles = read_all(path, "openslide", tile_px=32, target_mpp=0.5)
    inside = (tiles.coords // scan.side >= 4).all(1) & (tiles.coords // scan.side < 6).all(1)
    white = (ours == 255).all((1, 2, 3))
    assert inside.any()
    np.testing.assert_array_equal(status == TileStatus.MISSING, inside)
    assert not (white & (status == TileStatus.OK)).any()
    with open_slide(path) as slide:
        mask = find_tissue(slide, TissueRule())
        assert mask.fraction > 0.9, "what is missing is tried as tissue"


def test_a_level_that_lacks_what_level_0_has_is_not_looked_at(tmp_path: Path) -> None:
    """Its overview would be white there, and tissue would be passed over."""
    path = write_mrxs(tmp_path / "a.mrxs", RGB, Scan(), levels=3)
    spoilt_index(path, lambda level, rows: rows[:-3] if level == 1 else rows)
    with open_slide(path) as slide:
        assert [round(level.downsample_x) for level in slide.levels] == [1, 4]
        assert any("level 1" in note and "lacks 12 images" in note for note in slide.notes)


def write_key(name: str, value: object):  # type: ignore[no-untyped-def]
    return lambda text: re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}", text)


CONTRADICTIONS = {
    "more images than any slide": write_key("IMAGENUMBER_X", 2_000_000_000),
    "a picture beyond all sizes": write_key("IMAGENUMBER_X", 92_682),
    "less than a photo": write_key("IMAGENUMBER_X", 1),
    "a part of a photo": write_key("IMAGENUMBER_X", 13),
    "fewer rows than the index": write_key("IMAGENUMBER_Y", 2),
    "no images": write_key("IMAGENUMBER_Y", 0),
    "photos of parts beyond count": write_key("CameraImageDivisionsPerSide", 2_000_000_000),
    "no parts": write_key("CameraImageDivisionsPerSide", 0),
    "levels beyond count": write_key("HIER_0_COUNT", 2_000_000_000),
    "records beyond count": write_key("NONHIER_COUNT", 2_000_000_000),
    "files beyond count": write_key("FILE_COUNT", 2_000_000_000),
    "levels that join too much": write_key("IMAGE_CONCAT_FACTOR", 31),
    "level 0 that joins": write_key("IMAGE_CONCAT_FACTOR", 2),
    "overlap beyond the photo": write_key("OVERLAP_X", 1000),
    "overlap that is no number": write_key("OVERLAP_Y", "nan"),
    "overlap of a coarser level that is no number": lambda text: text.replace(
        "OVERLAP_Y = 0.0", "OVERLAP_Y = nan"
    ).replace("OVERLAP_Y = nan", "OVERLAP_Y = 0.0", 1),
    "images beyond all sizes": write_key("DIGITIZER_WIDTH", 2_000_000_000),
    "images of another size": write_key("DIGITIZER_WIDTH", 32),
    "another slide's index": write_key("SLIDE_ID", "x"),
    "a file elsewhere": write_key("FILE_0", "../../../etc/passwd"),
    "a file that is not there": write_key("FILE_0", "gone.dat"),
    "an index elsewhere": write_key("INDEXFILE", "/dev/zero"),
    "text in the place of a number": write_key("IMAGENUMBER_X", "Doe, Jane"),
    "no section": lambda text: text.replace("[DATAFILE]", "[X]"),
    "no ini": lambda text: "\0" + text[::-1],
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_refused(tmp_path: Path, name: str) -> None:
    """OpenSlide ends the process on some of them, and takes minutes over others."""
    path = write_mrxs(tmp_path / "a.mrxs", RGB[:256, :384], Scan(), levels=3)
    ini = path.with_suffix("") / "Slidedat.ini"
    text = ini.read_text("utf-8-sig")
    changed = CONTRADICTIONS[name](text)
    assert changed != text
    ini.write_text(changed, "utf-8-sig")
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert "Doe" not in str(caught.value)
    assert "passwd" not in str(caught.value)


INDEX_FAULTS = {
    "its root lies at its begin": (37, 0),
    "its root lies beyond": (37, 10**9),
    "its root is negative": (37, -1),
    "a level points at itself": (45, 45),
    "a page beyond count": (65, 2**31 - 1),
    "no images": (65, 0),
    "a page that goes on": (69, 65),
    "two images in one place": (73, 5),
    "an image off the grid": (73, 10**6),
    "an image before the grid": (73, -5),
}


@pytest.mark.parametrize("name", INDEX_FAULTS)
def test_a_damaged_index_is_refused(tmp_path: Path, name: str) -> None:
    path = write_mrxs(tmp_path / "a.mrxs", RGB[:256, :384], Scan(), levels=3)
    index = path.with_suffix("") / "Index.dat"
    data = bytearray(index.read_bytes())
    struct.pack_into("<i", data, *INDEX_FAULTS[name])
    index.write_bytes(data)
    with pytest.raises(SlideError):
        open_slide(path)


def test_an_index_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path / "a.mrxs", RGB[:256, :384], Scan(), levels=3)
    index = path.with_suffix("") / "Index.dat"
    whole = index.read_bytes()
    for size in range(0, len(whole) - 16, 29):
        index.write_bytes(whole[:size])
        with pytest.raises(SlideError):
            open_slide(path)


@pytest.mark.parametrize("value", [2**31 - 1, -(2**31), 10**6])
def test_a_photo_off_the_slide_is_refused(tmp_path: Path, value: int) -> None:
    """OpenSlide looks for it for a minute, and shows white in its place."""
    path = write_mrxs(tmp_path / "a.mrxs", RGB[:256, :384], Scan(positions="plain"), levels=2)
    record = path.with_suffix("") / "Data0001.dat"
    data = bytearray(record.read_bytes())
    struct.pack_into("<i", data, 37 + 9 * 4 + 1, value)
    record.write_bytes(data)
    with pytest.raises(SlideError, match="a photo lies off the slide"):
        open_slide(path)


@pytest.mark.parametrize("positions", ["plain", "deflated"])
def test_a_map_of_photos_that_ends_early_is_refused(tmp_path: Path, positions: str) -> None:
    path = write_mrxs(tmp_path / "a.mrxs", RGB[:256, :384], Scan(positions=positions), levels=2)
    record = path.with_suffix("") / "Data0001.dat"
    record.write_bytes(record.read_bytes()[:-5])
    with pytest.raises(SlideError):
        open_slide(path)


def test_data_that_end_early_are_refused(tmp_path: Path) -> None:
    """A copy that broke off: the coarsest level lies at the end."""
    path = write_mrxs(tmp_path / "a.mrxs", RGB, Scan(), levels=2)
    data = path.with_suffix("") / "Data0000.dat"
    data.write_bytes(data.read_bytes()[: data.stat().st_size * 6 // 10])
    with pytest.raises(SlideError):
        open_slide(path)


def test_places_beyond_the_data_are_unreadable_tiles(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path / "a.mrxs", RGB, Scan(), levels=3)

    def change(level: int, rows: np.ndarray) -> np.ndarray:
        if level == 0:
            rows[5:20, 1] = 2**31 - 1
        return rows

    spoilt_index(path, change)
    ours, status, tiles = read_all(path, "openslide", tile_px=64, target_mpp=0.5)
    number = tiles.coords[:, 1] // 64 * 12 + tiles.coords[:, 0] // 64
    np.testing.assert_array_equal(status == TileStatus.CORRUPT, (number >= 5) & (number < 20))
    assert not ((ours == 255).all((1, 2, 3)) & (status == TileStatus.OK)).any()
