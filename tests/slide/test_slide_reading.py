"""A slide's overview, its damage and its hash, on a reader of numbers: which level, which strips, which blocks."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stamp_deploy.errors import MppError, SlideError
from stamp_deploy.slide import opening
from stamp_deploy.slide import slide as module
from stamp_deploy.slide.backends import Level
from stamp_deploy.slide.held import HeldFiles
from stamp_deploy.slide.icc import Colours
from stamp_deploy.slide.identity import slide_files, slide_sha256
from stamp_deploy.slide.left_out import LeftOut
from stamp_deploy.slide.mpp import MppFinding
from stamp_deploy.slide.route import Route
from stamp_deploy.slide.slide import Slide


class Reader:
    """Level 0 is a picture; the others are it, stepped over. `broken` says which reads fail, in level-0 pixels."""

    name = vendor = "numbers"

    def __init__(self, picture: NDArray[np.uint8], sizes: list[tuple[int, int]]) -> None:
        self.pictures = [np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX)) for size in sizes]
        (width, height), *_ = sizes
        self.properties: dict[str, str] = {}
        self.levels = tuple(Level(i, w, h, width / w, height / h) for i, (w, h) in enumerate(sizes))
        self.asked: list[tuple[int, int, int, int, int]] = []
        self.broken: Callable[[int, int, int, int], bool] = lambda *_: False
        self.empty: NDArray[np.bool_] | None = None
        self.transparent: NDArray[np.bool_] | None = None
        self.forgotten = 0

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        self.asked.append((level, x, y, w, h))
        one = self.levels[level]
        if self.broken(x, y, round(w * one.downsample_x), round(h * one.downsample_y)):
            raise SlideError("is damaged there", remedy="scan again")
        left, top = round(x / one.downsample_x), round(y / one.downsample_y)
        if self.empty is not None:
            self.transparent = self.empty[top : top + h, left : left + w]
        part = self.pictures[level][top : top + h, left : left + w]
        assert part.shape[:2] == (h, w)
        return np.ascontiguousarray(part)

    def forget(self) -> None:
        self.forgotten += 1

    def close(self) -> None:
        pass


PICTURE = np.random.default_rng(0).integers(60, 255, (300, 800, 3), np.uint8)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., tuple[Slide, Reader]]:
    path = tmp_path / "a.tif"
    path.write_bytes(b"pixels")

    def make(sizes: list[tuple[int, int]], picture: NDArray[np.uint8] = PICTURE, **more: Any) -> tuple[Slide, Reader]:
        reader = Reader(picture, sizes)
        slide = Slide(
            path, reader, MppFinding(0.5, 0.25, "vendor", ()), Route("openslide", "a test"), held=HeldFiles(path),
            levels=reader.levels, colours=Colours("", None, ()), level_numbers=tuple(range(len(sizes))), **more,
        )  # fmt: skip
        return slide, reader

    return make


def boxed(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))


FULL, HALF, EIGHTH = (800, 300), (400, 150), (100, 38)


@pytest.mark.parametrize(
    ("most", "size", "level"),
    [
        (800, (800, 300), 0), (5000, (800, 300), 0), (799, (799, 300), 0), (401, (401, 150), 0), (400, (400, 150), 1),
        (200, (200, 75), 1), (101, (101, 38), 1), (100, (100, 38), 2), (50, (50, 19), 2), (1, (1, 1), 2),
    ],
)  # fmt: skip
def test_an_overview_comes_from_the_coarsest_level_that_is_fine_enough(
    opened: Callable[..., tuple[Slide, Reader]], most: int, size: tuple[int, int], level: int
) -> None:
    # 300 / 38 is 7.89 and 800 / 100 is 8: the larger of the two counts
    slide, reader = opened([FULL, HALF, EIGHTH])
    found = slide.thumbnail(most)
    assert found.shape == (size[1], size[0], 3)
    assert {asked[0] for asked in reader.asked} == {level}
    expected = boxed(reader.pictures[level], *size)
    assert np.abs(found.astype(int) - expected).max() <= (1 if level < 2 or most == 100 else 60)
    assert reader.forgotten == 1


@pytest.mark.parametrize("ratio", [2, 4, 5, 8])
def test_an_overview_at_a_whole_ratio_is_the_mean_of_blocks(
    opened: Callable[..., tuple[Slide, Reader]], ratio: int
) -> None:
    picture = np.random.default_rng(1).integers(60, 255, (400, 800, 3), np.uint8)
    slide, _ = opened([(800, 400)], picture)
    found = slide.thumbnail(800 // ratio)
    blocks = picture.reshape(400 // ratio, ratio, 800 // ratio, ratio, 3).mean(axis=(1, 3))
    assert np.abs(found - blocks).max() <= 0.6


@pytest.mark.parametrize(("rows", "bytes_at_once"), [(256, 8_000_000), (37, 8_000_000), (256, 800 * 3 * 50), (1, 1)])
def test_strips_put_together_are_the_whole(
    opened: Callable[..., tuple[Slide, Reader]], monkeypatch: pytest.MonkeyPatch, rows: int, bytes_at_once: int
) -> None:
    assert (module.STRIP_ROWS, module.STRIP_BYTES) == (256, 8_000_000)
    monkeypatch.setattr(module, "STRIP_ROWS", rows)
    monkeypatch.setattr(module, "STRIP_BYTES", bytes_at_once)
    slide, reader = opened([FULL])
    found = slide.thumbnail(100)
    assert [asked[2] for asked in reader.asked] == sorted({asked[2] for asked in reader.asked})
    tops = [(y, h) for _, _, y, _, h in reader.asked]
    assert tops[0][0] == 0 and sum(h for _, h in tops) == 300
    assert all(y + h == following for (y, h), (following, _) in pairwise(tops))
    most = max(3, min(rows, bytes_at_once // 2400))  # 300 rows become 38: reduced by 3, then resampled
    assert max(h for _, h in tops) <= most and all(h % 3 == 0 for _, h in tops[:-1])
    np.testing.assert_array_equal(found, boxed(np.asarray(Image.fromarray(PICTURE).reduce(3)), 100, 38))


def test_a_smaller_overview_is_made_from_the_one_that_is_kept(opened: Callable[..., tuple[Slide, Reader]]) -> None:
    slide, reader = opened([FULL, HALF])
    large = slide.thumbnail(400)
    asked = len(reader.asked)
    assert slide.thumbnail(400) is large
    np.testing.assert_array_equal(slide.thumbnail(100), boxed(large, 100, 38))
    assert len(reader.asked) == asked
    assert slide.thumbnail(401).shape == (150, 401, 3) and len(reader.asked) > asked
    slide, reader = opened([FULL])
    whole = slide.thumbnail(5000)
    asked = len(reader.asked)
    assert slide.thumbnail(900) is whole and slide.thumbnail(800) is whole and len(reader.asked) == asked
    tall, _ = opened([(3, 300)], np.full((300, 3, 3), 200, np.uint8))
    assert tall.thumbnail(50).shape == (50, 1, 3) and tall.thumbnail(20).shape == (20, 1, 3)


def test_a_damaged_block_is_white_and_told_and_the_rest_is_shown(opened: Callable[..., tuple[Slide, Reader]]) -> None:
    slide, reader = opened([FULL])
    reader.broken = lambda x, y, w, h: x < 600 < x + w and y < 290 < y + h
    found = slide.thumbnail(800)
    # strips of 256 rows, blocks of 256 px: the last strip has 44 rows
    assert slide.damage == [(512, 256, 256, 44)]
    expected = PICTURE.copy()
    expected[256:, 512:768] = 255
    np.testing.assert_array_equal(found, expected)


def test_damage_is_told_in_pixels_of_level_0(opened: Callable[..., tuple[Slide, Reader]]) -> None:
    picture = np.random.default_rng(2).integers(60, 255, (1200, 1600, 3), np.uint8)
    slide, reader = opened([(1600, 1200), (800, 300)], picture)  # downsamples 2 and 4
    reader.broken = lambda x, y, w, h: x < 1599 < x + w and y < 1199 < y + h
    found = slide.thumbnail(400)
    assert {asked[0] for asked in reader.asked} == {1} and found.shape == (300, 400, 3)
    assert slide.damage == [(1536, 1024, 64, 176)]
    assert (found[260:, 386:] == 255).all() and not (found[:250] == 255).all(axis=2).any()


@pytest.mark.parametrize(("least", "given_up"), [(2, True), (3, False)])
def test_a_slide_of_too_many_damaged_blocks_is_given_up(
    opened: Callable[..., tuple[Slide, Reader]], monkeypatch: pytest.MonkeyPatch, least: int, given_up: bool
) -> None:
    """Of 800 x 300 px there are 4 x 2 blocks; those that a format lacks at any rate are not counted."""
    assert module.MAX_DAMAGE == 200 and module.DAMAGE_BLOCK_PX == 256
    monkeypatch.setattr(module, "MAX_DAMAGE", least)
    lacks = LeftOut(np.array([[True, False, True]]), 10, 10)
    slide, reader = opened([FULL], missing=lacks)
    reader.broken = lambda x, y, w, h: y == 256 and x < 700
    if given_up:
        with pytest.raises(SlideError, match="is damaged there"):
            slide.thumbnail(800)
        return
    slide.thumbnail(800)
    assert slide.damage == [
        (0, 0, 10, 10),
        (20, 0, 10, 10),
        (0, 256, 256, 44),
        (256, 256, 256, 44),
        (512, 256, 256, 44),
    ]
    slide._thumbnail = None
    slide.thumbnail(800)
    assert len(slide.damage) == 5


def test_frames_that_a_dicom_lacks_are_found_in_the_pixels(opened: Callable[..., tuple[Slide, Reader]]) -> None:
    slide, reader = opened([(800, 400)], np.full((400, 800, 3), 200, np.uint8))
    reader.empty = np.zeros((400, 800), bool)
    slide.vendor = "dicom"
    slide.thumbnail(200)
    assert slide.left_out is None
    reader.empty[256:300, 80:120] = True
    slide.thumbnail(300)  # at a whole factor of 1
    assert slide.left_out is not None and (slide.left_out.cell_w, slide.left_out.cell_h) == (1, 1)
    assert np.argwhere(slide.left_out.cells)[[0, -1]].tolist() == [[256, 80], [299, 119]]
    slide._thumbnail = None
    slide.thumbnail(200)
    assert (slide.left_out.cell_w, slide.left_out.cell_h) == (4, 4)
    assert np.argwhere(slide.left_out.cells)[[0, -1]].tolist() == [[64, 20], [74, 29]]
    other, reader = opened([(800, 400)], np.full((400, 800, 3), 200, np.uint8))
    reader.empty = np.ones((400, 800), bool)
    other.thumbnail(200)
    assert other.left_out is None  # no DICOM


def test_reading_an_overview_ends_at_the_deadline(opened: Callable[..., tuple[Slide, Reader]]) -> None:
    slide, reader = opened([FULL])
    slide.deadline = time.monotonic() - 1
    with pytest.raises(SlideError, match="took longer than the time limit"):
        slide.thumbnail(100)
    assert not reader.asked
    slide.deadline = time.monotonic() + 1e6
    assert slide.thumbnail(100).shape == (38, 100, 3)


def test_levels_are_read_by_their_number_in_the_file(opened: Callable[..., tuple[Slide, Reader]]) -> None:
    slide, reader = opened([FULL, HALF])
    slide.level_numbers = (1, 0)
    slide.read_region(0, 3, 5, 7, 9)
    assert reader.asked == [(1, 3, 5, 7, 9)]
    assert (slide.width, slide.height, slide.mpp_xy) == (800, 300, (0.5, 0.25))
    assert slide.size_bytes == 6


def test_a_hash_is_of_all_parts_in_one_order(tmp_path: Path) -> None:
    path = tmp_path / "a.mrxs"
    path.write_bytes(b"preview")
    parts = {"Data0001.dat": b"one", "Slidedat.ini": b"two", "Data0000.DAT": b"zero", "notes.txt": b"no"}
    (tmp_path / "a").mkdir()
    for name, data in parts.items():
        (tmp_path / "a" / name).write_bytes(data)
    kept = ["Data0000.DAT", "Data0001.dat", "Slidedat.ini"]
    assert [part.name for part in slide_files(path, "mirax")] == kept
    whole = hashlib.sha256()
    for name in kept:
        whole.update(name.encode() + b"\0" + hashlib.sha256(parts[name]).digest())
    assert slide_sha256(path, "mirax") == whole.hexdigest()
    assert slide_sha256(path, "aperio") == hashlib.sha256(b"preview").hexdigest()
    index = tmp_path / "b.vms"
    index.write_text(
        "[Virtual Microscope Specimen]\nImageFile=b.jpg\nMapFile=none.jpg\nOther=../a.mrxs\nEmpty=\n[x]\nY=c.opt\n"
    )
    (tmp_path / "b.jpg").write_bytes(b"jpg")
    (tmp_path / "c.opt").write_bytes(b"opt")
    assert [part.name for part in slide_files(index, "hamamatsu")] == ["b.jpg", "b.vms", "c.opt"]
    assert slide_files(tmp_path / "c.ndpi", "hamamatsu") == [tmp_path / "c.ndpi"]
    index.write_text("no section at all")
    assert slide_files(index, "hamamatsu") == [index]


def test_a_hash_is_of_every_byte(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes((4 << 20) * 2 + 17)
    (tmp_path / "a").write_bytes(data)
    assert slide_sha256(tmp_path / "a", "aperio") == hashlib.sha256(data).hexdigest()
    held = HeldFiles(tmp_path / "a")
    for _ in range(2):  # from its beginning, whatever was read of it
        assert slide_sha256(tmp_path / "a", "aperio", held) == hashlib.sha256(data).hexdigest()
    held.close()
    with pytest.raises(SlideError, match="cannot be read: No such file"):
        slide_sha256(tmp_path / "none", "aperio")


@pytest.mark.parametrize("reason", [MppError("no microns per pixel"), KeyboardInterrupt()])
def test_a_slide_that_is_refused_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: BaseException
) -> None:
    """Its reader holds a descriptor, and a batch goes on to the next of thousands of slides."""
    path = tmp_path / "a.svs"
    path.write_bytes(b"a slide")
    reader = Reader(PICTURE, [(PICTURE.shape[1], PICTURE.shape[0])])

    def refuse(*rest: Any) -> None:
        raise reason

    monkeypatch.setattr(opening, "_open_backend", lambda *rest: reader)
    monkeypatch.setattr(opening, "_open", refuse)
    closed: list[str] = []
    monkeypatch.setattr(reader, "close", lambda: closed.append("reader"))
    monkeypatch.setattr(opening.HeldFiles, "close", lambda self: closed.append("files"))
    with pytest.raises(type(reason)):
        opening.open_slide(path)
    assert closed == ["reader", "files"]
